// SPDX-License-Identifier: BSL-1.0
//
// A chunk enters with its first failure and leaves when it is ready or no longer wanted.
#include "failures.hpp"

#include <algorithm>

namespace worker {

void Failures::observe(const garner::Event& event) {
  const std::lock_guard lock(mutex_);
  switch (event.kind) {
    case garner::EventKind::chunk_failed: {
      Failure& failure = failing_[event.id];
      failure.id = event.id;
      ++failure.attempts;
      failure.order = ++total_;
      failure.error = event.error;
      failure.subject = event.subject;
      break;
    }
    case garner::EventKind::chunk_ready:
    case garner::EventKind::chunk_unlisted:
    case garner::EventKind::chunk_removed: failing_.erase(event.id); break;
    case garner::EventKind::converged: failing_.clear(); break;
    case garner::EventKind::scrubbed:
    case garner::EventKind::volume_away:
    case garner::EventKind::volume_read_only:
    case garner::EventKind::volume_healthy:
    case garner::EventKind::recovered:
    case garner::EventKind::events_dropped:
    case garner::EventKind::closed: break;
  }
}

template <class Less>
std::vector<Failure> Failures::first(std::size_t limit, std::uint64_t above, Less less) const {
  const std::lock_guard lock(mutex_);
  std::vector<Failure> out;
  for (const auto& [id, failure] : failing_) {
    if (failure.order > above) out.push_back(failure);
  }
  const std::size_t kept = std::min(limit, out.size());
  std::partial_sort(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(kept), out.end(), less);
  out.resize(kept);
  return out;
}

std::vector<Failure> Failures::current(std::size_t limit) const {
  return first(limit, 0, [](const Failure& a, const Failure& b) { return a.order > b.order; });
}

std::vector<Failure> Failures::since(std::uint64_t order, std::size_t limit) const {
  return first(limit, order, [](const Failure& a, const Failure& b) { return a.order < b.order; });
}

std::size_t Failures::count() const {
  const std::lock_guard lock(mutex_);
  return failing_.size();
}

std::uint64_t Failures::total() const {
  const std::lock_guard lock(mutex_);
  return total_;
}

}  // namespace worker
