// SPDX-License-Identifier: BSL-1.0
//
// What a task pool has been given and has not done yet: a queue, the agents that it has on an executor to work on it,
// and who waits for what. The results and the handles are in task_pool.hpp.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <stop_token>
#include <utility>

#include "garner/error.hpp"
#include "garner/policies/executor.hpp"

namespace garner::detail {

/// One task. Its work and its result are the derived class's.
class PoolTask : public std::enable_shared_from_this<PoolTask> {
 public:
  PoolTask() = default;
  PoolTask(const PoolTask&) = delete;
  PoolTask& operator=(const PoolTask&) = delete;
  virtual ~PoolTask() = default;

  /// In the place of a result. Of a task that has ended.
  [[nodiscard]] const std::exception_ptr& error() const noexcept { return error_; }

 protected:
  /// Does the work, sets a result or an error, and lets go of all that the work held.
  virtual void run() noexcept = 0;
  /// Lets go of it undone.
  virtual void drop() noexcept = 0;

  std::exception_ptr error_;
  std::stop_source stop_{std::nostopstate};

 private:
  friend class PoolWork;
  enum class State : std::uint8_t {
    waiting,  ///< for the task that it continues
    queued,
    running,  ///< or about to end without having run
    ended,
  };

  // Guarded by the lock of the pool's work.
  State state_ = State::waiting;
  std::shared_ptr<PoolTask> continues_;  ///< while it waits for that
  std::shared_ptr<PoolTask> next_;       ///< that continues this one

  // Its place in the queue is made with it, so that it can be queued where nothing may fail.
  using Places = std::list<std::shared_ptr<PoolTask>>;
  Places place_ = Places(1);
  Places::iterator at_ = place_.begin();
};

/// Shared by the pool, its handles and its agents. An agent is a task of the executor: it does one task of the pool,
/// and is posted anew where there are more, so that whoever else uses the executor has a turn.
///
/// Thread-safety: every member from any thread. Tasks, and what they hold, are run and destroyed outside of the lock.
class PoolWork : public std::enable_shared_from_this<PoolWork> {
 public:
  using TaskPtr = std::shared_ptr<PoolTask>;
  using Poster = std::function<void(Task)>;
  using ErrorHandler = std::function<void(std::exception_ptr)>;

  /// At most `max_concurrent` tasks run at the same time; 0: any number. `driven`: the executor has no threads, so
  /// whoever waits does the work.
  PoolWork(std::size_t max_concurrent, bool driven, Poster poster, ErrorHandler on_error)
      : max_(max_concurrent == 0 ? std::numeric_limits<std::size_t>::max() : max_concurrent),
        driven_(driven),
        poster_(std::move(poster)),
        on_error_(std::move(on_error)) {}
  PoolWork(const PoolWork&) = delete;
  PoolWork& operator=(const PoolWork&) = delete;
  ~PoolWork() = default;

  /// Takes on `task`. Throws `Error` with `errc::closed`, and what the executor throws where it refuses and nobody else
  /// is there to do it; nothing has changed then.
  void give(const TaskPtr& task) {
    std::unique_lock lock(mutex_);
    check_open();
    ++open_;
    give(lock, task);
  }

  /// Takes on `task`, to be run after `first`, or to fail with its error.
  void chain(const TaskPtr& first, const TaskPtr& task) {
    std::unique_lock lock(mutex_);
    check_open();
    ++open_;
    if (first->state_ != PoolTask::State::ended) {
      first->next_ = task;
      task->continues_ = first;
    } else if (first->error_) {
      fail(lock, task, first->error_);
    } else {
      give(lock, task);
    }
  }

  /// True where `task` had not begun, and now never will. Where it runs, its stop token says so from now on.
  bool abort(const TaskPtr& task) {
    TaskPtr first;
    std::unique_lock lock(mutex_);
    if (task->state_ == PoolTask::State::ended) return false;
    if (task->state_ == PoolTask::State::running) {
      lock.unlock();
      task->stop_.request_stop();
      return false;
    }
    if (task->state_ == PoolTask::State::queued) unlink(*task);
    first = std::move(task->continues_);
    if (first) first->next_.reset();
    fail(lock, task, std::make_exception_ptr(Error(errc::cancelled, "task")));
    return true;
  }

  [[nodiscard]] bool has_ended(const TaskPtr& task) {
    const std::scoped_lock lock(mutex_);
    return task->state_ == PoolTask::State::ended;
  }

  /// Until `task` has ended. Does it on this thread where nobody else could.
  void wait(const TaskPtr& task) {
    TaskPtr next;  // that continues what was run last, so that a long chain is not walked for each of its tasks
    std::unique_lock lock(mutex_);
    while (task->state_ != PoolTask::State::ended) {
      if (next && (next->state_ != PoolTask::State::queued || !may_help())) {
        lock.unlock();
        next.reset();
        lock.lock();
        continue;
      }
      if (!next) {
        PoolTask* first = task.get();
        while (first->state_ == PoolTask::State::waiting) first = first->continues_.get();
        if (first->state_ == PoolTask::State::queued && may_help()) next = first->shared_from_this();
      }
      if (!next) {
        changed_.wait(lock);
        continue;
      }
      TaskPtr first = std::move(next);
      next = first->next_;
      help(lock, std::move(first));
    }
  }

  /// Refuses what comes from now on, and returns when all that was given has ended. Inside of a task it does not wait.
  void stop() {
    std::unique_lock lock(mutex_);
    closed_ = true;
    if (is_inside()) return;
    while (open_ != 0 || posting_ != 0) {
      if (TaskPtr task = active_ < max_ ? take() : nullptr) {
        ++agents_;
        run(lock, std::move(task), true);
        leave();
      } else {
        changed_.wait(lock);
      }
    }
  }

  /// What a task threw that has nobody else to tell.
  void report(const std::exception_ptr& error) const noexcept {
    try {
      if (on_error_) on_error_(error);
    } catch (...) {
      // A handler that fails has nobody to tell either.
    }
  }

 private:
  /// Posted to the executor. One that is dropped there, or refused, takes itself off.
  class Agent {
   public:
    explicit Agent(std::shared_ptr<PoolWork> work) : work_(std::move(work)) {}
    Agent(const Agent&) = delete;
    Agent& operator=(const Agent&) = delete;
    ~Agent() {
      if (!work_) return;
      const std::scoped_lock lock(work_->mutex_);
      work_->leave();
    }
    void run() {
      const std::shared_ptr<PoolWork> work = std::exchange(work_, nullptr);
      std::unique_lock lock(work->mutex_);
      work->work(lock);
    }

   private:
    std::shared_ptr<PoolWork> work_;
  };

  /// One for each task of a pool that this thread is in.
  struct Frame {
    explicit Frame(const PoolWork* owner) : work(owner), above(std::exchange(innermost, this)) {}
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
    ~Frame() { innermost = above; }

    const PoolWork* work;
    Frame* above;
    static inline thread_local Frame* innermost = nullptr;
  };

  [[nodiscard]] bool is_inside() const noexcept {
    for (const Frame* frame = Frame::innermost; frame != nullptr; frame = frame->above) {
      if (frame->work == this) return true;
    }
    return false;
  }

  // ---- under the lock

  void check_open() const {
    if (closed_) throw Error(errc::closed, "task pool");
  }

  void push(const TaskPtr& task) noexcept {
    task->state_ = PoolTask::State::queued;
    *task->at_ = task;
    queue_.splice(queue_.end(), task->place_);
  }

  /// Out of the queue, and this thread's to run or to fail.
  TaskPtr unlink(PoolTask& task) noexcept {
    task.state_ = PoolTask::State::running;
    task.place_.splice(task.place_.end(), queue_, task.at_);
    return std::exchange(*task.at_, nullptr);
  }

  TaskPtr take() noexcept { return queue_.empty() ? nullptr : unlink(*queue_.front()); }

  /// An agent is gone.
  void leave() noexcept {
    if (--agents_ == 0) changed_.notify_all();
  }

  [[nodiscard]] bool may_help() const noexcept {
    // Whoever waits inside of a task lends that one its own place.
    return is_inside() || ((driven_ || agents_ == 0) && active_ < max_);
  }

  // ---- under the lock, which they let go of meanwhile

  void give(std::unique_lock<std::mutex>& lock, const TaskPtr& task) {
    push(task);
    if (agents_ >= max_) return;
    const std::exception_ptr refusal = post_agent(lock);
    if (!refusal || agents_ != 0) return;
    const bool refused = task->state_ == PoolTask::State::queued;
    if (refused) {
      unlink(*task);
      --open_;
    }
    // An agent may have left meanwhile, since this one was to come.
    ++agents_;
    work(lock);
    if (refused) std::rethrow_exception(refusal);
  }

  /// What the executor threw, where it refused.
  std::exception_ptr post_agent(std::unique_lock<std::mutex>& lock) noexcept {
    ++agents_;
    ++posting_;
    lock.unlock();
    std::exception_ptr refusal;
    bool counted = false;  // off, by the agent itself
    try {
      auto agent = std::make_shared<Agent>(shared_from_this());
      counted = true;
      poster_([agent = std::move(agent)] { agent->run(); });
    } catch (...) {
      refusal = std::current_exception();
    }
    lock.lock();
    if (refusal && !counted) leave();
    if (--posting_ == 0) changed_.notify_all();
    return refusal;
  }

  /// As one of the agents, which leaves at the end.
  void work(std::unique_lock<std::mutex>& lock) noexcept {
    do {
      TaskPtr task = active_ < max_ ? take() : nullptr;
      if (!task) break;
      run(lock, std::move(task), true);
    } while (!is_relieved(lock));
    leave();
  }

  /// On a thread that waits for it.
  void help(std::unique_lock<std::mutex>& lock, TaskPtr task) noexcept {
    unlink(*task);
    if (is_inside()) return run(lock, std::move(task), false);
    ++agents_;
    run(lock, std::move(task), true);
    if (is_relieved(lock)) return leave();
    work(lock);
  }

  /// Whether an agent may leave: each task in the queue has another one, that has not begun yet.
  bool is_relieved(std::unique_lock<std::mutex>& lock) noexcept {
    // As many as may run now. Looked at once more after each that was posted: others may have left because this one was
    // still here.
    while (std::min(queue_.size(), max_ - active_) > agents_ - active_ - 1) {
      if (post_agent(lock)) return false;
    }
    return true;
  }

  void run(std::unique_lock<std::mutex>& lock, TaskPtr task, bool counts) noexcept {
    if (counts) ++active_;
    lock.unlock();
    {
      const Frame frame(this);
      task->run();
    }
    lock.lock();
    if (counts) --active_;
    finish(lock, std::move(task));
  }

  void fail(std::unique_lock<std::mutex>& lock, TaskPtr task, std::exception_ptr error) noexcept {
    task->state_ = PoolTask::State::running;
    lock.unlock();
    task->error_ = std::move(error);
    task->drop();
    lock.lock();
    finish(lock, std::move(task));
  }

  /// After its work. What continues a task that failed ends here as well.
  void finish(std::unique_lock<std::mutex>& lock, TaskPtr task) noexcept {
    while (task) {
      task->state_ = PoolTask::State::ended;
      changed_.notify_all();
      TaskPtr next = std::exchange(task->next_, nullptr);
      if (next) next->continues_.reset();
      if (next && !task->error_) push(std::exchange(next, nullptr));
      if (next) next->state_ = PoolTask::State::running;
      const std::exception_ptr error = task->error_;
      lock.unlock();
      // The result, where nobody wants it, goes before the task counts as done.
      task = std::move(next);
      if (task) {
        task->error_ = error;
        task->drop();
      }
      lock.lock();
      if (--open_ == 0) changed_.notify_all();
    }
  }

  const std::size_t max_;
  const bool driven_;
  const Poster poster_;
  const ErrorHandler on_error_;

  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  PoolTask::Places queue_;
  std::size_t agents_ = 0;   // posted, or at work; who helps is one
  std::size_t active_ = 0;   // tasks that run, but for those inside of others
  std::size_t open_ = 0;     // tasks that were given and have not ended
  std::size_t posting_ = 0;  // threads that are in the executor
  bool closed_ = false;
};

}  // namespace garner::detail
