// SPDX-License-Identifier: BSL-1.0
//
// The servers that chunks come from: how many transfers each of them bears at the moment, when one that failed is to be
// left alone, and which of a file's mirrors is the best. Decides from what it is told of transfers; knows nothing of
// chunks.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "garner/core/actions.hpp"
#include "garner/core/schedule.hpp"
#include "garner/error.hpp"
#include "garner/status.hpp"

namespace garner::core {

/// The part of `url` up to its path, in lower case and without credentials: what has a server of its own. Of text that
/// is no URL, some part of it.
inline std::string origin_of(std::string_view url) {
  const std::size_t scheme = url.find("://");
  const std::size_t start = scheme == std::string_view::npos ? 0 : scheme + 3;
  const std::string_view authority = url.substr(start, url.find_first_of("/?#", start) - start);
  const std::size_t at = authority.rfind('@');
  std::string origin(url.substr(0, start));
  origin += authority.substr(at == std::string_view::npos ? 0 : at + 1);
  return detail::fold_case(origin);
}

/// One server. Who fetches from it keeps it.
struct Host {
  static constexpr double unlimited = std::numeric_limits<double>::infinity();

  explicit Host(std::string of) : origin(std::move(of)) {}

  std::string origin;
  std::size_t moving = 0;              ///< transfers
  double bears = unlimited;            ///< transfers at once, where it has said that there were too many
  std::uint64_t setbacks = 0;          ///< in a row
  std::uint64_t setbacks_ever = 0;     ///< a transfer that began before the last one tells nothing new by failing too
  std::optional<Instant> rests_until;  ///< nothing is asked of it before
  double bytes_per_second = 0;         ///< of one transfer, lately
  std::uint64_t measured = 0;          ///< transfers that this was learnt from
};
using HostPtr = std::shared_ptr<Host>;

/// One of the places that a file can be had from.
struct Mirror {
  HostPtr host;
  bool tried = false;  ///< in this round
};

/// Thread-safety: none. Each member is O(log n) in the number of hosts, but for those that say otherwise.
class Hosts {
 public:
  HostPtr at(std::string_view url) {
    std::string origin = origin_of(url);
    if (const auto found = hosts_.find(origin); found != hosts_.end()) return found->second;
    if (hosts_.size() >= room_) forget_idle();
    auto host = std::make_shared<Host>(origin);
    hosts_.emplace(std::move(origin), host);
    return host;
  }

  /// Transfers that may run at once.
  [[nodiscard]] static std::size_t bears(const Host& host, std::size_t most) noexcept {
    // Asked by one, until it has answered.
    if (is_on_probation(host)) return 1;
    return host.bears >= static_cast<double>(most) ? most : static_cast<std::size_t>(host.bears);
  }
  /// Chunks that are worth being fetched from it at once: while some are published, together, others move.
  [[nodiscard]] static std::size_t feeds(const Host& host, std::size_t most) noexcept {
    if (host.rests_until) return 0;
    const std::size_t transfers = bears(host, most);
    if (is_on_probation(host)) return transfers;
    return transfers > std::numeric_limits<std::size_t>::max() / 4 ? transfers : 4 * transfers;
  }
  /// It has failed again and again, and not answered since.
  [[nodiscard]] static bool is_on_probation(const Host& host) noexcept { return host.setbacks >= many_setbacks; }

  /// Whether a transfer can begin from one of these now.
  [[nodiscard]] static bool can_choose(std::span<const Mirror> mirrors, std::size_t most) noexcept {
    const std::optional<std::size_t> best = rank(mirrors).first;
    return best && has_room(*mirrors[*best].host, most);
  }

  /// The mirror that it is to begin from: the first that does not rest, unless another is known to be at least twice as
  /// fast; and now and then, where it may be any, the one that least is known of. None where the best one bears no
  /// more.
  [[nodiscard]] static std::optional<std::size_t> choose(std::span<const Mirror> mirrors, std::size_t most,
                                                         bool may_explore, Random& random) {
    const auto [best, other] = rank(mirrors);
    if (!best || !has_room(*mirrors[*best].host, most)) return std::nullopt;
    const bool explores =
        other && may_explore && random.next() % explore_one_in == 0 && has_room(*mirrors[*other].host, most);
    return explores ? other : best;
  }

  /// When the first of those that are left to try can be asked again; nothing where one can be now, or none is left.
  [[nodiscard]] static std::optional<Instant> rest_until(std::span<const Mirror> mirrors) noexcept {
    std::optional<Instant> first;
    for (const Mirror& mirror : mirrors) {
      if (mirror.tried) continue;
      const std::optional<Instant>& until = mirror.host->rests_until;
      if (!until) return std::nullopt;
      if (!first || *until < *first) first = until;
    }
    return first;
  }

  /// A transfer has begun. What is returned is given back at its end.
  static std::uint64_t began(Host& host) noexcept {
    ++host.moving;
    return host.setbacks_ever;
  }

  /// A transfer has ended so. `most`: that may go to one server at once.
  void ended(const HostPtr& host, std::uint64_t began, const Outcome& outcome, const Options& options, std::size_t most,
             Instant now, Random& random) {
    --host->moving;
    const ErrorClass cls = classify(outcome.error);
    measure(*host, outcome);
    if (cls == ErrorClass::transient) {
      if (began == host->setbacks_ever) set_back(host, outcome, options, now, random);
    } else if (cls == ErrorClass::none) {
      host->setbacks = 0;
      host->bears += 1 / host->bears;
      if (host->bears >= static_cast<double>(most)) host->bears = Host::unlimited;
    } else if (cls == ErrorClass::gone || cls == ErrorClass::credentials) {
      answered(*host, began);
    }
  }

  /// It answers a transfer that has begun, whatever it says.
  static void answered(Host& host, std::uint64_t began) noexcept {
    if (began == host.setbacks_ever) host.setbacks = 0;
  }

  /// Those that have rested are asked again.
  void wake(Instant now) {
    while (!resting_.empty() && resting_.begin()->first <= now) {
      resting_.begin()->second->rests_until.reset();
      resting_.erase(resting_.begin());
    }
  }

  [[nodiscard]] std::optional<Instant> next_wake() const {
    if (resting_.empty()) return std::nullopt;
    return resting_.begin()->first;
  }

 private:
  static constexpr std::uint64_t many_setbacks = 2;
  static constexpr std::uint64_t explore_one_in = 32;
  static constexpr std::uint64_t enough_measured = 4;
  static constexpr std::uint64_t least_measured_bytes = 64 * 1024;  // less tells of the way there, and not of its width
  static constexpr std::size_t most_idle = 1024;

  /// The best of those that can be asked, and of the others the one that least is known of.
  static std::pair<std::optional<std::size_t>, std::optional<std::size_t>> rank(
      std::span<const Mirror> mirrors) noexcept {
    // Nobody waits for one that is being found out about, where there is another.
    const auto can_be_asked = [](const Mirror& mirror) {
      const Host& host = *mirror.host;
      return !mirror.tried && !host.rests_until && !(is_on_probation(host) && host.moving > 0);
    };
    std::optional<std::size_t> best;
    for (std::size_t i = 0; i < mirrors.size(); ++i) {
      if (!can_be_asked(mirrors[i])) continue;
      if (!best || is_faster(*mirrors[i].host, *mirrors[*best].host)) best = i;
    }
    if (!best) return {};
    std::optional<std::size_t> other;
    for (std::size_t i = 0; i < mirrors.size(); ++i) {
      if (!can_be_asked(mirrors[i]) || mirrors[i].host == mirrors[*best].host) continue;
      if (!other || mirrors[i].host->measured < mirrors[*other].host->measured) other = i;
    }
    return {best, other};
  }

  static bool has_room(const Host& host, std::size_t most) noexcept { return host.moving < bears(host, most); }

  static bool is_faster(const Host& host, const Host& than) noexcept {
    return host.measured >= enough_measured && than.measured >= enough_measured &&
           host.bytes_per_second >= 2 * than.bytes_per_second;
  }

  static void measure(Host& host, const Outcome& outcome) noexcept {
    if (outcome.bytes < least_measured_bytes || outcome.took <= std::chrono::nanoseconds::zero()) return;
    const double rate = static_cast<double>(outcome.bytes) / std::chrono::duration<double>(outcome.took).count();
    host.bytes_per_second = host.measured == 0 ? rate : 0.75 * host.bytes_per_second + 0.25 * rate;
    ++host.measured;
  }

  /// Additive increase, multiplicative decrease (Chiu, Jain: Analysis of the increase and decrease algorithms for
  /// congestion avoidance, 1989), once for all the transfers that were under way.
  void set_back(const HostPtr& host, const Outcome& outcome, const Options& options, Instant now, Random& random) {
    ++host->setbacks_ever;
    ++host->setbacks;
    const bool is_busy = outcome.error == errc::server_busy;
    if (is_busy) {
      const auto now_moving = static_cast<double>(host->moving + 1);
      host->bears = std::max(1.0, std::min(host->bears, now_moving) / 2);
    }
    // One transfer that broke says little about a server.
    if (!is_busy && !outcome.retry_after && host->setbacks < many_setbacks) return;
    const auto rest = retry_delay(options, ErrorClass::transient, outcome.retry_after, host->setbacks - 1, random);
    if (host->rests_until) resting_.erase({*host->rests_until, host});
    host->rests_until = std::max(now + rest, host->rests_until.value_or(now));
    resting_.emplace(*host->rests_until, host);
  }

  /// O(n), and rare: lakes have a few hosts.
  void forget_idle() {
    std::erase_if(hosts_, [](const auto& entry) { return entry.second.use_count() == 1; });
    room_ = std::max(most_idle, 2 * hosts_.size());
  }

  std::unordered_map<std::string, HostPtr> hosts_;
  std::set<std::pair<Instant, HostPtr>> resting_;
  std::size_t room_ = most_idle;
};

}  // namespace garner::core
