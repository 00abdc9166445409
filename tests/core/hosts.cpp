// SPDX-License-Identifier: BSL-1.0
//
// What a server bears, when it rests, and which mirror is the best.
#include "garner/core/hosts.hpp"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

using garner::errc;
using garner::Options;
using garner::core::HostPtr;
using garner::core::Hosts;
using garner::core::Instant;
using garner::core::Mirror;
using garner::core::origin_of;
using garner::core::Outcome;
using garner::core::Random;
using namespace std::chrono_literals;

namespace {

/// Servers, and a time that is told.
struct World {
  Hosts hosts;
  Options options;
  Random random{1};
  Instant now{1s};

  /// One transfer, from its begin to this end.
  void transfer(const HostPtr& host, const Outcome& outcome) {
    const std::uint64_t began = Hosts::began(*host);
    hosts.ended(host, began, outcome, options, 8, now, random);
  }
  void fail(const HostPtr& host, errc error, std::optional<std::chrono::nanoseconds> retry_after = std::nullopt) {
    transfer(host, {error, "subject", retry_after});
  }
  void succeed(const HostPtr& host, std::uint64_t bytes = 0, std::chrono::nanoseconds took = {}) {
    Outcome outcome;
    outcome.bytes = bytes;
    outcome.took = took;
    transfer(host, outcome);
  }
  /// Until it can be asked again.
  void rest(const HostPtr& host) {
    now = host->rests_until.value();
    hosts.wake(now);
  }
  std::optional<std::size_t> choose(const std::vector<Mirror>& mirrors) {
    return Hosts::choose(mirrors, 8, true, random);
  }
};

}  // namespace

TEST_CASE("an origin is what comes before the path, whatever its case, and without credentials") {
  CHECK(origin_of("https://Lake.Example:8443/a/B?c#d") == "https://lake.example:8443");
  CHECK(origin_of("http://user:p@ss@host/x@y") == "http://host");
  CHECK(origin_of("http://host?x") == "http://host");
  CHECK(origin_of("nonsense") == "nonsense");
  CHECK(origin_of("") == "");
  World world;
  CHECK(world.hosts.at("http://a/x") == world.hosts.at("HTTP://A/y"));
  CHECK(world.hosts.at("http://a/x") != world.hosts.at("https://a/x"));
}

TEST_CASE(
    "one transfer that broke says little; from the second in a row on the server rests, and then is asked by one") {
  World world;
  const HostPtr host = world.hosts.at("http://a/");
  world.fail(host, errc::connection_failed);
  CHECK_FALSE(host->rests_until);
  CHECK(Hosts::bears(*host, 8) == 8);
  world.succeed(host);
  world.fail(host, errc::timed_out);
  CHECK_FALSE(host->rests_until);
  world.fail(host, errc::timed_out);
  REQUIRE(host->rests_until);
  CHECK(*host->rests_until < world.now + 200ms);
  CHECK(Hosts::feeds(*host, 8) == 0);
  CHECK(world.hosts.next_wake() == host->rests_until);
  world.rest(host);
  CHECK_FALSE(world.hosts.next_wake());
  CHECK(Hosts::bears(*host, 8) == 1);
  CHECK(Hosts::feeds(*host, 8) == 1);
  world.succeed(host);
  CHECK(Hosts::bears(*host, 8) == 8);
  CHECK(Hosts::feeds(*host, 8) == 32);
}

TEST_CASE("transfers that were under way when a server failed tell nothing new by failing too") {
  World world;
  const HostPtr host = world.hosts.at("http://a/");
  std::array<std::uint64_t, 8> began{};
  for (std::uint64_t& at : began) at = Hosts::began(*host);
  for (const std::uint64_t at : began) {
    world.hosts.ended(host, at, {errc::server_busy, "", std::nullopt}, world.options, 8, world.now, world.random);
  }
  CHECK(host->setbacks == 1);
  CHECK(host->moving == 0);
  CHECK(Hosts::bears(*host, 100) == 4);
}

TEST_CASE("a server that asks for less gets half, never less than one, and one more each time that all came through") {
  World world;
  const HostPtr host = world.hosts.at("http://a/");
  for (int i = 0; i < 7; ++i) Hosts::began(*host);
  world.fail(host, errc::server_busy);  // the eighth
  REQUIRE(host->rests_until);
  world.rest(host);
  CHECK(Hosts::bears(*host, 8) == 4);
  for (int i = 0; i < 5; ++i) world.succeed(host);
  CHECK(Hosts::bears(*host, 8) == 5);
  int more = 0;
  while (Hosts::bears(*host, 8) < 8) {
    world.succeed(host);
    ++more;
  }
  CHECK(more > 10);
  CHECK(more < 30);
  for (int i = 0; i < 10; ++i) {
    world.fail(host, errc::server_busy);
    world.rest(host);
    CHECK(Hosts::bears(*host, 8) >= 1);
  }
  CHECK(Hosts::bears(*host, 8) == 1);
}

TEST_CASE("a server rests for as long as it asks, within the limits, and for longer each time") {
  World world;
  world.options.min_backoff = 1ms;
  world.options.max_backoff = 1min;
  const HostPtr host = world.hosts.at("http://a/");
  world.fail(host, errc::server_unavailable, 10s);
  CHECK(*host->rests_until >= world.now + 10s);
  CHECK(*host->rests_until < world.now + 10s + 1ms);
  world.rest(host);
  world.fail(host, errc::server_busy, std::chrono::hours(1000000));
  CHECK(*host->rests_until <= world.now + 1min + 2ms);
  world.rest(host);
  std::chrono::nanoseconds longest{};
  for (int i = 0; i < 100; ++i) {
    world.fail(host, errc::connection_failed);
    longest = std::max(longest, *host->rests_until - world.now);
    CHECK(*host->rests_until <= world.now + 1min);
    world.rest(host);
  }
  CHECK(longest > 30s);
}

TEST_CASE("a server that answers is well, whatever it answers about one file") {
  World world;
  const HostPtr host = world.hosts.at("http://a/");
  for (const errc error : {errc::not_found, errc::credentials_rejected}) {
    world.fail(host, errc::connection_failed);
    world.fail(host, error);
    world.fail(host, errc::connection_failed);
    CHECK_FALSE(host->rests_until);
    world.succeed(host);
  }
  for (const errc error : {errc::io_error, errc::cancelled, errc::digest_mismatch}) {
    for (int i = 0; i < 10; ++i) world.fail(host, error);
    CHECK_FALSE(host->rests_until);
    CHECK(host->setbacks == 0);
  }
}

TEST_CASE("the first mirror is asked, the next where it was tried or rests, and none while the best one has no room") {
  World world;
  std::vector<Mirror> mirrors = {{world.hosts.at("http://a/")}, {world.hosts.at("http://b/")}};
  // One in 32 goes elsewhere, to know that too.
  int first = 0;
  for (int i = 0; i < 320; ++i) first += world.choose(mirrors) == 0U ? 1 : 0;
  CHECK(first > 290);
  CHECK(first < 320);
  // Another URL of the same server tells nothing new.
  const std::vector<Mirror> same = {mirrors[0], mirrors[0]};
  for (int i = 0; i < 320; ++i) CHECK(world.choose(same) == 0U);
  mirrors[0].tried = true;
  CHECK(world.choose(mirrors) == 1U);
  mirrors[0].tried = false;
  world.fail(mirrors[0].host, errc::server_busy);
  CHECK(world.choose(mirrors) == 1U);
  CHECK_FALSE(Hosts::rest_until(mirrors));
  mirrors[1].tried = true;
  CHECK_FALSE(world.choose(mirrors));
  CHECK(Hosts::rest_until(mirrors) == mirrors[0].host->rests_until);
  mirrors[1].tried = false;
  world.rest(mirrors[0].host);
  while (Hosts::bears(*mirrors[0].host, 8) > mirrors[0].host->moving) Hosts::began(*mirrors[0].host);
  CHECK_FALSE(world.choose(mirrors));  // not the second one, which may be dear
  CHECK_FALSE(Hosts::can_choose(mirrors, 8));
}

TEST_CASE("nobody waits for a mirror that is being found out about, where there is another") {
  World world;
  const HostPtr away = world.hosts.at("http://away/");
  const HostPtr well = world.hosts.at("http://well/");
  world.fail(away, errc::timed_out);
  world.fail(away, errc::timed_out);
  world.rest(away);
  const std::uint64_t began = Hosts::began(*away);
  for (int i = 0; i < 100; ++i) CHECK(world.choose({{away}, {well}}) == 1U);
  CHECK_FALSE(world.choose({{away}}));
  Hosts::answered(*away, began - 1);  // an older one
  CHECK(Hosts::is_on_probation(*away));
  Hosts::answered(*away, began);
  CHECK_FALSE(Hosts::is_on_probation(*away));
  CHECK(Hosts::bears(*away, 8) == 8);
}

TEST_CASE("a mirror that is known to be twice as fast is preferred, and small files do not say how fast one is") {
  World world;
  const HostPtr slow = world.hosts.at("http://slow/");
  const HostPtr fast = world.hosts.at("http://fast/");
  const std::vector<Mirror> mirrors = {{slow}, {fast}};
  const auto most_chosen = [&] {
    int second = 0;
    for (int i = 0; i < 100; ++i) second += world.choose(mirrors) == 1U ? 1 : 0;
    return second > 50 ? 1 : 0;
  };
  for (int i = 0; i < 10; ++i) world.succeed(slow, 1000000, 1s);
  for (int i = 0; i < 10; ++i) world.succeed(fast, 1000, 1us);
  CHECK(most_chosen() == 0);
  for (int i = 0; i < 10; ++i) world.succeed(fast, 1900000, 1s);
  CHECK(most_chosen() == 0);
  for (int i = 0; i < 20; ++i) world.succeed(fast, 4000000, 1s);
  CHECK(most_chosen() == 1);
  for (int i = 0; i < 20; ++i) world.succeed(fast, 100000, 1s);  // it has become slow
  CHECK(most_chosen() == 0);
}

TEST_CASE("servers that nobody fetches from are forgotten, once they are many") {
  World world;
  const HostPtr kept = world.hosts.at("http://kept/");
  const HostPtr resting = world.hosts.at("http://resting/");
  world.fail(resting, errc::server_busy, 1min);
  for (int i = 0; i < 5000; ++i) world.hosts.at("http://" + std::to_string(i) + "/");
  CHECK(world.hosts.at("http://kept/") == kept);
  CHECK(world.hosts.at("http://resting/") == resting);
}
