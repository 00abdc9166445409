// SPDX-License-Identifier: BSL-1.0
//
// The order of the demonstration's parts, and the table at its end.
#include "demo.hpp"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "demo_stage.hpp"
#include "text.hpp"

namespace worker {

namespace {

std::string fault_summary(const Origin& origin) {
  std::string out;
  for (std::size_t kind = 1; kind < fault_kinds; ++kind) {
    const std::uint64_t count = origin.faults(static_cast<Fault>(kind));
    if (count == 0) continue;
    out += fmt::format("{}{} x {}", out.empty() ? "" : ", ", count, to_string(static_cast<Fault>(kind)));
  }
  return out.empty() ? "none" : out;
}

std::string result_table(const Stage& stage, const DemoResults& results) {
  const garner::Status& fetched = results.fetched;
  const double seconds = std::chrono::duration<double>(results.fetch_time).count();
  const Histogram& lookups = stage.looked_up.nanoseconds;
  const auto ns = [](std::uint64_t count) { return format_duration(std::chrono::nanoseconds(count)); };
  Table table({{""}, {""}});
  table.add({"chunks", fmt::format("{} fetched, {} deleted ({} of them pinned), {} held at the end", fetched.ready,
                                   results.deleted, results.deleted_pinned,
                                   stage.service ? stage.service->manager().status().ready : 0)});
  table.add({"bytes", fmt::format("{} held, {} received in {}, {} of them in vain", format_bytes(fetched.bytes_ready),
                                  format_bytes(fetched.bytes_received), format_duration(results.fetch_time),
                                  format_bytes(fetched.bytes_wasted))});
  table.add(
      {"rate",
       fmt::format("{}/s{}", seconds > 0 ? format_bytes(static_cast<double>(fetched.bytes_received) / seconds) : "-",
                   stage.options.bytes_per_second > 0
                       ? fmt::format(" (the origin was paced to {}/s)", format_bytes(stage.options.bytes_per_second))
                       : "")});
  table.add({"faults", fault_summary(*stage.origin)});
  table.add({"failed attempts", format_count(fetched.attempts_failed)});
  table.add({"lookups", fmt::format("{}, {} found a chunk, {} wrong answers", format_count(lookups.count()),
                                    format_count(stage.looked_up.found), stage.looked_up.wrong)});
  table.add({"lookup time", fmt::format("p50 {}, p99 {}, longest {}", ns(lookups.quantile(0.5)),
                                        ns(lookups.quantile(0.99)), ns(lookups.max()))});
  table.add({"still pinned", fmt::format("{} at the close", format_plural(results.pinned_at_close, "deleted chunk"))});
  table.add({"recovery", fmt::format("{} in {}", format_plural(results.recovered, "chunk"),
                                     format_duration(results.recovery_time))});
  table.add({"read back", fmt::format("{}, {}", format_plural(results.verified_files, "file"),
                                      format_bytes(results.verified_bytes))});
  table.add({"checks", fmt::format("{} held, {} failed", stage.checks_held, stage.checks_failed.size())});
  return table.to_string();
}

}  // namespace

int run_demo(const DemoOptions& options, Signals& signals) {
  Stage stage(options, signals);
  DemoResults results;
  try {
    fetch_under_lookups(stage, results);
    delete_and_restart(stage, results);
    verify_and_heal(stage, results);
    stage.stop_lookups();
    stage.check(stage.looked_up.wrong == 0, "no lookup ever had a wrong answer");
  } catch (const Interrupted&) {
    stage.stop_lookups();
    stage.say("interrupted");
    return 1;
  } catch (const std::exception& problem) {
    stage.stop_lookups();
    stage.check(false, problem.what());
  }
  stage.heading("What happened");
  stage.console.print(result_table(stage, results));
  for (const std::string& what : stage.checks_failed) stage.console.print("FAILED: " + what, Style::bad);
  if (options.keep) stage.console.print("kept: " + stage.data_dir().string());
  return stage.checks_failed.empty() ? 0 : 1;
}

}  // namespace worker
