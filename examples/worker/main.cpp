// SPDX-License-Identifier: BSL-1.0
//
// The command line: what can be asked of the program, and which part of it answers.
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>

#include "commands.hpp"
#include "demo.hpp"
#include "manifest.hpp"
#include "run.hpp"
#include "serve_origin.hpp"
#include "signals.hpp"
#include "text.hpp"

namespace {

constexpr const char* about =
    "Keeps a directory of data chunks as a manifest says, and answers questions about it.\n\n"
    "  worker --manifest FILE --data-dir DIR    fetch what is missing, remove what is too much, and keep "
    "serving\n"
    "  worker list --data-dir DIR               ask the worker that runs on DIR, or DIR itself where none "
    "does\n"
    "  worker --demo                            see all of it on an embedded origin; needs nothing else\n";

// Exit codes: what was asked for was not so, and what was asked for was not understood.
constexpr int failed = 1;
constexpr int misused = 2;

/// Turns "100MB" into bytes; returns what is wrong with it.
std::string read_bytes(std::string& text) {
  try {
    text = std::to_string(worker::parse_bytes(text));
    return {};
  } catch (const std::invalid_argument& problem) {
    return problem.what();
  }
}

void add_store_options(CLI::App& command, worker::CommandOptions& options) {
  command.add_option("--data-dir", options.data_dir, "The data directory")->required()->type_name("DIR");
  command.add_option("--control", options.control_file, "The worker's control file (default: DIR.control)")
      ->type_name("FILE");
  command.add_flag("--json", options.json, "Print JSON");
}

int dispatch(int argc, char** argv) {
  CLI::App app(about, "worker");
  worker::RunOptions run;
  worker::DemoOptions demo;
  worker::CommandOptions command;
  worker::ServeOptions serve;
  double max_backoff = 0;
  bool is_demo = false;

  app.add_option("--manifest", run.manifests, "What to keep; may be given several times")->type_name("FILE");
  app.add_option("--data-dir", run.data_dir, "Where to keep it")->type_name("DIR");
  app.add_option("--base-url", run.base_url, "Fetch every file from here, by the path of its URL")->type_name("URL");
  app.add_option("--version", run.version, "Of a manifest with versions, just this one (default: each in turn)")
      ->type_name("N");
  app.add_flag("--add", run.add, "Keep what the directory holds beside what the manifest names");
  app.add_flag("--once", run.once, "End when all is there, and do not keep serving");
  app.add_option("--listen", run.listen, "Where to answer questions; port 0 is any that is free")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--control", run.control_file, "Where to write how to ask (default: DIR.control)")->type_name("FILE");
  app.add_option("--connections", run.manager.max_concurrent_files, "Files to fetch at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--max-backoff", max_backoff, "Seconds between two attempts, at most (default: 300)")
      ->check(CLI::Range(0.1, 86400.0));
  app.add_flag("--require-https", run.manager.require_https, "Refuse http URLs");

  app.add_flag("--demo", is_demo, "Show the main job on an embedded origin, and check it");
  app.add_option("--chunks", demo.chunks, "Chunks to fetch in the demonstration")
      ->capture_default_str()
      ->check(CLI::Range(20, 100000))
      ->group("Demo");
  app.add_option("--scale", demo.scale, "Files are this much smaller than in the manifest")
      ->capture_default_str()
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 40))
      ->group("Demo");
  app.add_option("--seed", demo.seed, "Decides the bytes and the faults")->capture_default_str()->group("Demo");
  app.add_option("--threads", demo.threads, "Threads that look up")
      ->capture_default_str()
      ->check(CLI::Range(1, 64))
      ->group("Demo");
  app.add_option("--pace", demo.bytes_per_second,
                 "Bytes a second of the origin; 0: as fast as it goes (default: 100MB)")
      ->transform(CLI::Validator(read_bytes, "BYTES"))
      ->group("Demo");
  app.add_flag("--keep", demo.keep, "Leave the data directory behind")->group("Demo");

  CLI::App& list = *app.add_subcommand("list", "Print all chunks that are wanted or held");
  add_store_options(list, command);
  list.add_option("--manifest", command.manifests, "Names for the ids, where no worker runs")->type_name("FILE");
  std::string dataset;
  std::uint64_t block = 0;
  CLI::App& find = *app.add_subcommand("find", "Print the chunk that serves a block; exit code 1 where none does");
  add_store_options(find, command);
  find.add_option("DATASET", dataset, "The dataset's name, or its id in hexadecimal")->required();
  find.add_option("BLOCK", block, "The block's number")->required();
  std::string chunk;
  CLI::App& remove = *app.add_subcommand("delete", "Delete a chunk; a worker fetches it again after its next start");
  add_store_options(remove, command);
  remove.add_option("CHUNK", chunk, "The chunk's name, or its id in hexadecimal")->required();

  CLI::App& origin = *app.add_subcommand("origin", "Serve a manifest's names on loopback, with bytes made from a seed");
  origin.add_option("--manifest", serve.manifests, "What to serve; may be given several times")
      ->required()
      ->type_name("FILE");
  origin.add_option("--write-manifest", serve.rewritten, "Where to write the manifest for this origin")
      ->required()
      ->type_name("FILE");
  origin.add_option("--scale", serve.origin.scale, "Serve files this much smaller")->capture_default_str();
  origin.add_option("--seed", serve.origin.seed, "Decides the bytes")->capture_default_str();
  origin.add_option("--pace", serve.origin.bytes_per_second, "Bytes a second; 0: as fast as it goes")
      ->transform(CLI::Validator(read_bytes, "BYTES"))
      ->default_str("0");
  origin.add_flag("--faults", serve.origin.faults, "Misbehave with one file in ten");

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked_for_help) {
    return app.exit(asked_for_help);
  } catch (const CLI::ParseError& problem) {
    app.exit(problem);
    return misused;
  }

  if (list.parsed()) return worker::list_chunks(command);
  if (find.parsed()) return worker::find_chunk(command, dataset, block);
  if (remove.parsed()) return worker::delete_chunk(command, chunk);
  worker::Signals signals;
  if (origin.parsed()) return worker::serve_origin(serve, signals);
  if (is_demo) {
    demo.manifests = run.manifests;
    return worker::run_demo(demo, signals);
  }
  if (run.manifests.empty() || run.data_dir.empty()) {
    fmt::print(stderr, "--manifest and --data-dir are needed, or --demo, or a subcommand: see --help\n");
    return misused;
  }
  run.manager.max_files_per_host = run.manager.max_concurrent_files;
  if (max_backoff > 0) {
    run.manager.max_backoff =
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(max_backoff));
  }
  return worker::run(run, signals);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return dispatch(argc, argv);
  } catch (const worker::ManifestError& problems) {
    fmt::print(stderr, "worker: nothing was done:\n{}\n", problems.what());
    return misused;
  } catch (const std::exception& problem) {
    fmt::print(stderr, "worker: {}\n", problem.what());
    return failed;
  }
}
