// SPDX-License-Identifier: BSL-1.0
//
// Which file is served how, and which misbehaves when. The HTTP itself is support/loopback_origin.hpp.
#include "origin.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "../support/loopback_origin.hpp"

namespace worker {

namespace {

constexpr std::string_view bad_mirror = "/bad-mirror";

/// Between 256 KiB and 256 MiB, small ones as likely as large ones: what a column of a chunk weighs.
std::uint64_t draw_size(std::uint64_t random) {
  const double exponent = 18 + 10 * (static_cast<double>(random >> 11) / static_cast<double>(std::uint64_t{1} << 53));
  return static_cast<std::uint64_t>(std::exp2(exponent));
}

/// One file in ten misbehaves.
Fault draw_fault(std::uint64_t random, std::uint64_t size) {
  const std::uint64_t percent = random % 100;
  if (percent < 4) return Fault::unavailable;
  if (percent < 7) return size >= 64 * 1024 ? Fault::reset : Fault::unavailable;
  if (percent < 9) return size > 0 ? Fault::wrong_bytes : Fault::missing;
  if (percent < 10) return Fault::missing;
  return Fault::none;
}

}  // namespace

std::string_view to_string(Fault fault) noexcept {
  switch (fault) {
    case Fault::none: return "none";
    case Fault::unavailable: return "503 with Retry-After";
    case Fault::reset: return "connection reset in the body";
    case Fault::wrong_bytes: return "one wrong byte from a mirror";
    case Fault::missing: return "404 for a while";
  }
  return "unknown";
}

Origin::Origin(Manifest& manifest, OriginOptions options) : options_(options) {
  options_.scale = std::max<std::uint64_t>(options_.scale, 1);
  const auto for_each_file = [&manifest](const auto& visit) {
    for (Version& version : manifest.versions) {
      for (NamedChunk& chunk : version.downloaded) {
        for (auto& [name, source] : chunk.description.files) visit(source);
      }
    }
  };
  for_each_file([this](const garner::FileSource& source) { add_file(url_path(source.urls.front()), source); });
  compute_digests();
  server_ = std::make_unique<support::LoopbackOrigin>(
      [this](const support::Request& request) { return answer(request); }, options_.threads, options_.bytes_per_second);
  for_each_file([this, url = server_->url()](garner::FileSource& source) {
    const std::string path = url_path(source.urls.front());
    const File& file = *files_.at(path);
    source.urls = {url + path};
    if (file.fault == Fault::wrong_bytes) source.urls.insert(source.urls.begin(), url + std::string(bad_mirror) + path);
    source.size = file.content.size;
    source.digest = file.digest;
  });
}

Origin::~Origin() = default;

std::string Origin::url() const { return server_->url(); }

void Origin::add_file(const std::string& path, const garner::FileSource& source) {
  const auto [slot, is_new] = files_.try_emplace(path);
  if (!is_new) return;
  const std::uint64_t random = mix(options_.seed, path);
  const std::uint64_t whole = source.size.value_or(draw_size(mix(random + 1)));
  const std::uint64_t size = whole == 0 ? 0 : std::max<std::uint64_t>(whole / options_.scale, 1);
  const Fault fault = options_.faults ? draw_fault(mix(random + 2), size) : Fault::none;
  slot->second = std::make_unique<File>(Content{random, size}, fault);
  bytes_ += size;
}

void Origin::compute_digests() {
  std::vector<File*> files;
  for (const auto& [path, file] : files_) files.push_back(file.get());
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < files.size(); i = next++) {
        files[i]->digest = files[i]->content.digest();
        files[i]->etag = fmt::format("\"{}\"", files[i]->digest->to_string().substr(7, 32));
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

support::Reply Origin::answer(const support::Request& request) {
  ++requests_;
  std::string path = request.target.substr(0, request.target.find('?'));
  const bool from_bad_mirror = path.starts_with(bad_mirror);
  if (from_bad_mirror) path.erase(0, bad_mirror.size());
  const auto found = files_.find(path);
  if (found == files_.end()) return support::Reply::of("no such file\n", 404);
  File& file = *found->second;
  const bool fault_is_due = file.fault != Fault::none && (file.fault != Fault::wrong_bytes || from_bad_mirror);
  support::Reply reply = fault_is_due ? misbehave(file) : support::Reply();
  if (reply.fill || reply.status != 200) return reply;
  reply.etag = file.etag;
  reply.length = file.content.size;
  reply.fill = [&content = file.content](std::uint64_t offset, std::span<char> out) { content.fill(offset, out); };
  return reply;
}

support::Reply Origin::misbehave(File& file) {
  const unsigned before = file.requests++;
  const auto count = [this, &file] { ++faults_[static_cast<std::size_t>(file.fault)]; };
  support::Reply reply;
  switch (file.fault) {
    case Fault::none: break;
    case Fault::unavailable:
      if (before >= 2) break;
      count();
      reply = support::Reply::of("come back later\n", 503);
      reply.headers.emplace_back("Retry-After", "1");
      break;
    case Fault::reset:
      if (before >= 1) break;
      count();
      reply.reset_after = file.content.size / 2;
      break;
    case Fault::missing:
      if (before >= 2) break;
      count();
      reply = support::Reply::of("not here yet\n", 404);
      break;
    case Fault::wrong_bytes:
      count();
      reply.etag = "\"bad\"";
      reply.length = file.content.size;
      reply.fill = [&content = file.content](std::uint64_t offset, std::span<char> out) {
        content.fill(offset, out);
        const std::uint64_t at = content.size / 2;
        if (at >= offset && at - offset < out.size()) out[static_cast<std::size_t>(at - offset)] ^= 1;
      };
      break;
  }
  return reply;
}

}  // namespace worker
