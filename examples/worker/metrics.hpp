// SPDX-License-Identifier: BSL-1.0
//
// The manager's status in the form that Prometheus scrapes.
#pragma once

#include <prometheus/collectable.h>
#include <garner/status.hpp>

#include <functional>
#include <string>
#include <vector>

namespace worker {

/// Turns the status of the moment into metric families; nothing is counted a second time here. Can be
/// registered with any Prometheus exposer.
class Metrics : public prometheus::Collectable {
 public:
  explicit Metrics(std::function<garner::Status()> status) : status_(std::move(status)) {}

  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override;
  /// All families, in the text format 0.0.4.
  [[nodiscard]] std::string to_text() const;

 private:
  std::function<garner::Status()> status_;
};

}  // namespace worker
