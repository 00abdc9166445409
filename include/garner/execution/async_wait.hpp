// SPDX-License-Identifier: BSL-1.0
//
// The waits of a data manager as Asio operations: with a callback, a future, or `co_await` and
// `asio::use_awaitable`.
#pragma once

#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/executor_work_guard.hpp>
#include <asio/post.hpp>
#include <asio/system_executor.hpp>

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "garner/data_manager.hpp"

namespace garner {

namespace detail {

/// One wait: completes its handler once, when `is_over(event)` or the manager is closed.
template <class Handler>
class AsyncWait : public std::enable_shared_from_this<AsyncWait<Handler>> {
 public:
  explicit AsyncWait(Handler handler)
      : handler_(std::move(handler)), work_(asio::get_associated_executor(*handler_, asio::system_executor())) {}

  /// `is_over` is asked at once, and then at each event.
  template <class Manager, class IsOver>
  void start(Manager& manager, IsOver is_over) {
    auto self = this->shared_from_this();
    Subscription subscription = manager.subscribe([self, &manager, is_over](const Event& event) {
      if (is_over(manager)) return self->complete({});
      if (event.kind == EventKind::closed) self->complete(errc::closed);
      if (event.kind == EventKind::recovered && event.error) self->complete(event.error);
    });
    // After subscribing, so that nothing falls between.
    const bool over = is_over(manager);
    const Status status = manager.status();
    std::optional<std::error_code> error;
    {
      const std::scoped_lock lock(mutex_);
      subscription_ = std::move(subscription);
      starting_ = false;
      error = early_;
    }
    // The handler may end the manager, so that is not touched any more.
    if (error) return complete(*error);
    if (over) return complete({});
    if (status.closed) return complete(errc::closed);
    if (status.recovery_error) complete(status.recovery_error);
  }

 private:
  void complete(std::error_code error) {
    std::optional<Handler> handler;
    Subscription subscription;
    {
      const std::scoped_lock lock(mutex_);
      if (starting_) {
        if (!early_) early_ = error;
        return;
      }
      // A handler need not be assignable.
      if (handler_) handler.emplace(*std::move(handler_));
      handler_.reset();
      subscription = std::move(subscription_);
    }
    if (!handler) return;
    const auto executor = work_.get_executor();
    asio::post(executor, [handler = *std::move(handler), error]() mutable { std::move(handler)(error); });
    work_.reset();
  }

  using Executor = asio::associated_executor_t<Handler, asio::system_executor>;

  std::mutex mutex_;
  std::optional<Handler> handler_;
  asio::executor_work_guard<Executor> work_;
  Subscription subscription_;
  bool starting_ = true;                  // nothing completes before `start` is through
  std::optional<std::error_code> early_;  // what was to complete then
};

template <class Manager, class IsOver, class Token>
auto async_wait(Manager& manager, IsOver is_over, Token&& token) {
  return asio::async_initiate<Token, void(std::error_code)>(
      [&manager, is_over = std::move(is_over)](auto handler) {
        using Handler = decltype(handler);
        std::make_shared<AsyncWait<Handler>>(std::move(handler))->start(manager, is_over);
      },
      token);
}

}  // namespace detail

/// Completes with no error once nothing wanted is missing and nothing unwanted is left unpinned, with
/// `errc::closed` where the manager is closed before, and with `Status::recovery_error` where there is one. The
/// handler, `void(std::error_code)`, runs on its associated executor. The manager must live until then.
template <class S, class D, class E, class Token>
auto async_wait_converged(DataManager<S, D, E>& manager, Token&& token) {
  return detail::async_wait(
      manager, [](const DataManager<S, D, E>& m) { return m.status().converged; }, std::forward<Token>(token));
}

/// As `async_wait_converged`, once the chunk is served.
template <class S, class D, class E, class Token>
auto async_wait_ready(DataManager<S, D, E>& manager, const ChunkId& id, Token&& token) {
  return detail::async_wait(
      manager,
      [id](const DataManager<S, D, E>& m) {
        const std::optional<ChunkStatus> status = m.chunk_status(id);
        return status && status->served;
      },
      std::forward<Token>(token));
}

}  // namespace garner
