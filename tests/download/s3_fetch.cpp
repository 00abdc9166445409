// SPDX-License-Identifier: BSL-1.0
//
// Fetches one URL with CurlDownloader and says how that went, for tests/download/s3: "class: bytes", and beside an
// error what is told to people. Keys come as S3_KEYS=access:secret in the environment.
#include <cstddef>
#include <cstdlib>
#include <future>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <system_error>

#include "garner/download/curl_downloader.hpp"
#include "garner/error.hpp"
#include "garner/policies/downloader.hpp"

namespace {

class Sink final : public garner::FetchSink {
 public:
  std::error_code begin(std::uint64_t, const garner::SourceIdentity&) override { return {}; }
  std::error_code write(std::span<const std::byte> bytes) override {
    for (const std::byte byte : bytes) text += static_cast<char>(byte);
    return {};
  }
  void done(const garner::FetchResult& result) override { ended.set_value(result); }

  std::string text;
  std::promise<garner::FetchResult> ended;
};

}  // namespace

int main(int count, char** arguments) {
  const std::span<char*> words(arguments, static_cast<std::size_t>(count));
  if (words.size() != 2) return 2;
  const std::string url = words[1];
  garner::Options options;
  if (const char* const keys = std::getenv("S3_KEYS"); keys != nullptr) {  // NOLINT(concurrency-mt-unsafe): one thread
    const std::string pair = keys;
    garner::HostCredentials credentials;
    credentials.host = url.substr(0, url.find('/', url.find("://") + 3));
    credentials.s3 = garner::S3Keys{pair.substr(0, pair.find(':')), pair.substr(pair.find(':') + 1)};
    options.http.credentials = {credentials};
  }
  garner::CurlDownloader downloader(options);
  const auto sink = std::make_shared<Sink>();
  downloader.start({url, 0, {}, {}}, sink);
  const garner::FetchResult result = sink->ended.get_future().get();
  std::cout << garner::to_string(garner::classify(result.error)) << ": " << (result.error ? result.detail : sink->text);
}
