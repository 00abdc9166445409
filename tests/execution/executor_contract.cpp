// SPDX-License-Identifier: BSL-1.0
//
// The executor contract over every executor here.
#include "contract/executor_contract.hpp"

#include <doctest/doctest.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <asio/thread_pool.hpp>
#include <thread>

#include "garner/execution/asio_executor.hpp"
#include "garner/execution/inline_executor.hpp"

namespace {

struct OwnThreads {
  garner::AsioExecutor make() { return garner::AsioExecutor(3); }
};

struct OneThread {
  garner::AsioExecutor make() { return garner::AsioExecutor(1); }
};

struct BorrowedContext {
  BorrowedContext() : guard(context.get_executor()), thread([this] { context.run(); }) {}
  ~BorrowedContext() {
    context.stop();
    thread.join();
  }
  garner::AsioExecutor make() { return garner::AsioExecutor(context); }

  asio::io_context context;
  asio::executor_work_guard<asio::io_context::executor_type> guard;
  std::thread thread;
};

struct BorrowedPool {
  garner::AsioExecutor make() { return garner::AsioExecutor(pool); }
  asio::thread_pool pool{2};
};

struct InlineOnTheSteadyClock {
  garner::InlineExecutor make() { return {}; }
};

struct InlineOnAManualClock {
  garner::InlineExecutor make() { return garner::InlineExecutor::manual(); }
};

}  // namespace

TEST_CASE("the executor contract: AsioExecutor on threads of its own") {
  garner::test::executor_contract<OwnThreads>();
}
TEST_CASE("the executor contract: AsioExecutor on one thread") { garner::test::executor_contract<OneThread>(); }
TEST_CASE("the executor contract: AsioExecutor on a borrowed io_context") {
  garner::test::executor_contract<BorrowedContext>();
}
TEST_CASE("the executor contract: AsioExecutor on a borrowed thread_pool") {
  garner::test::executor_contract<BorrowedPool>();
}
TEST_CASE("the executor contract: InlineExecutor on the steady clock") {
  garner::test::executor_contract<InlineOnTheSteadyClock>();
}
TEST_CASE("the executor contract: InlineExecutor on a manual clock") {
  garner::test::executor_contract<InlineOnAManualClock>();
}
