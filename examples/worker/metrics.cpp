// SPDX-License-Identifier: BSL-1.0
//
// Names follow prometheus.io/docs/practices/naming: base units, and `_total` for what only grows.
#include "metrics.hpp"

#include <prometheus/client_metric.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <utility>

namespace worker {

namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

ClientMetric gauge(double value, std::vector<ClientMetric::Label> labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  metric.gauge.value = value;
  return metric;
}

template <class Number>
MetricFamily gauge_family(std::string name, std::string help, Number value) {
  return {std::move(name), std::move(help), MetricType::Gauge, {gauge(static_cast<double>(value))}};
}

MetricFamily counter_family(std::string name, std::string help, std::uint64_t value) {
  ClientMetric metric;
  metric.counter.value = static_cast<double>(value);
  return {std::move(name), std::move(help), MetricType::Counter, {metric}};
}

}  // namespace

std::vector<MetricFamily> Metrics::Collect() const {
  const garner::Status status = status_();
  MetricFamily chunks{"garner_chunks", "Chunks by their state.", MetricType::Gauge, {}};
  const std::pair<const char*, std::size_t> states[] = {
      {"ready", status.ready},       {"queued", status.queued},    {"downloading", status.downloading},
      {"waiting", status.waiting},   {"parked", status.parked},    {"draining", status.draining},
      {"removing", status.removing}, {"checking", status.checking}};
  for (const auto& [state, count] : states) {
    chunks.metric.push_back(gauge(static_cast<double>(count), {{"state", state}}));
  }
  return {
      std::move(chunks),
      gauge_family("garner_ready_bytes", "Bytes of the chunks that are served.", status.bytes_ready),
      gauge_family("garner_receive_rate_bytes", "Bytes received a second, over the last few.", status.bytes_per_second),
      gauge_family("garner_store_used_bytes", "Bytes that the store uses.", status.store_bytes_used),
      gauge_family("garner_store_free_bytes", "Bytes that the store has left.", status.store_bytes_free),
      gauge_family("garner_converged", "1 where nothing wanted is missing and nothing unwanted is left unpinned.",
                   status.converged ? 1 : 0),
      gauge_family("garner_assigned_epoch", "The last assignment that was given.", status.assigned_epoch),
      gauge_family("garner_converged_epoch", "The last assignment that was reached.", status.converged_epoch),
      counter_family("garner_received_bytes_total", "Bytes received over the network.", status.bytes_received),
      counter_family("garner_wasted_bytes_total", "Bytes received and thrown away.", status.bytes_wasted),
      counter_family("garner_chunks_published_total", "Chunks that became ready.", status.chunks_published),
      counter_family("garner_chunks_removed_total", "Generations that were removed.", status.chunks_removed),
      counter_family("garner_attempts_failed_total", "Attempts to fetch a chunk that failed.", status.attempts_failed),
  };
}

std::string Metrics::to_text() const { return prometheus::TextSerializer().Serialize(Collect()); }

}  // namespace worker
