// SPDX-License-Identifier: BSL-1.0
//
// From a manifest to a store that is as it says, version by version.
#include "run.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <utility>

#include "console.hpp"
#include "control.hpp"
#include "manifest.hpp"
#include "progress.hpp"
#include "service.hpp"
#include "text.hpp"

namespace worker {

namespace {

constexpr std::chrono::milliseconds tick(100);

std::size_t index_of_version(const Manifest& manifest, std::uint64_t number) {
  for (std::size_t i = 0; i < manifest.versions.size(); ++i) {
    if (manifest.versions[i].number == number) return i;
  }
  throw ManifestError({fmt::format("the manifest has no version {}", number)});
}

Manifest load(const RunOptions& options) {
  // The downloader is the one that will fetch: what it would not take is refused here, with its line.
  const garner::CurlDownloader downloader(options.manager);
  Manifest manifest =
      load_manifests(options.manifests, [&downloader](std::string_view url) { return downloader.check_url(url); });
  if (options.add && manifest.versioned) throw ManifestError({"--add needs a manifest without versions"});
  if (options.version && !manifest.versioned) throw ManifestError({"--version needs a manifest with versions"});
  if (options.version) index_of_version(manifest, *options.version);
  if (!options.base_url.empty()) redirect(manifest, options.base_url);
  return manifest;
}

/// Which versions to go through: from `begin`, and not `end`.
struct Course {
  std::size_t begin;
  std::size_t end;
};

Course course_of(const Manifest& manifest, const RunOptions& options, const Service& service) {
  if (options.version) {
    const std::size_t index = index_of_version(manifest, *options.version);
    return {index, index + 1};
  }
  // A directory that stands at some version goes on from there: a restart does not fetch the history again.
  for (std::size_t i = manifest.versions.size(); i-- > 0;) {
    if (service.holds(manifest.assignment(i))) return {i, manifest.versions.size()};
  }
  return {0, manifest.versions.size()};
}

/// Ticks until the store is as it was asked to be; false where a signal came first.
bool converge(Service& service, Progress& progress, Signals& signals) {
  while (!signals.wait(tick)) {
    const Frame frame = service.frame();
    progress.update(frame);
    if (frame.status.converged) return true;
  }
  return false;
}

/// False where a signal came first.
bool apply(const Manifest& manifest, const RunOptions& options, Service& service, Progress& progress,
           Signals& signals) {
  const auto log_converged = [&] {
    const garner::Status status = service.manager().status();
    progress.log(
        fmt::format("converged: {}, {}", format_plural(status.ready, "chunk"), format_bytes(status.bytes_ready)),
        Style::good);
  };
  if (!manifest.versioned) {
    const auto chunks = manifest.assignment();
    options.add ? service.add(chunks) : service.assign(chunks);
    if (!converge(service, progress, signals)) return false;
    log_converged();
    return true;
  }
  const Course course = course_of(manifest, options, service);
  for (std::size_t i = course.begin; i < course.end; ++i) {
    const auto chunks = manifest.assignment(i);
    progress.log(fmt::format("version {}: {}", manifest.versions[i].number, format_plural(chunks.size(), "chunk")));
    service.assign(chunks);
    if (!converge(service, progress, signals)) return false;
    log_converged();
  }
  return true;
}

}  // namespace

int run(const RunOptions& options, Signals& signals) {
  const Manifest manifest = load(options);
  Console console(stderr);
  Service service(options.data_dir, options.manager);
  Progress progress(console, service.failures(), true);
  progress.set_lookups([&service](const garner::ChunkId& id) { return service.name_of(id); },
                       [&service](const garner::ChunkId& id) { return service.manager().chunk_status(id); });
  for (const std::string& warning : manifest.warnings) progress.log(warning);
  service.learn(manifest);
  const ControlServer control(
      service, options.listen,
      options.control_file.empty() ? default_control_file(options.data_dir) : options.control_file);
  progress.log(fmt::format("{}: {} held; questions at {}", options.data_dir.string(),
                           format_plural(service.manager().list_chunks().size(), "chunk"), control.url()));
  const bool converged = apply(manifest, options, service, progress, signals);
  if (converged && !options.once) {
    while (!signals.wait(tick)) progress.update(service.frame());
  }
  progress.finish();
  progress.log("closing");
  service.manager().close();
  return converged || !options.once ? 0 : 1;
}

}  // namespace worker
