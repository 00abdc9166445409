// SPDX-License-Identifier: BSL-1.0
//
// Content is splitmix64 of (seed + position), eight bytes at a time, in the order that the machine has them
// in.
#include "content.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace worker {

namespace {

constexpr std::size_t piece_size = 256 * 1024;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    if (context_ == nullptr || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1) throw std::bad_alloc();
  }

  void update(std::span<const char> bytes) {
    if (EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) != 1) throw std::runtime_error("SHA-256 failed");
  }

  garner::Digest finish() {
    std::array<std::uint8_t, EVP_MAX_MD_SIZE> bytes{};
    unsigned size = 0;
    if (EVP_DigestFinal_ex(context_.get(), bytes.data(), &size) != 1) throw std::runtime_error("SHA-256 failed");
    return garner::Digest::parse("sha256:" + garner::detail::format_hex(bytes.data(), size));
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

std::array<char, 8> word_at(std::uint64_t seed, std::uint64_t index) noexcept {
  return std::bit_cast<std::array<char, 8>>(mix(seed + index));
}

}  // namespace

std::uint64_t mix(std::uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15U;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9U;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebU;
  return value ^ (value >> 31);
}

std::uint64_t mix(std::uint64_t seed, std::string_view text) noexcept {
  std::uint64_t mixed = mix(seed ^ text.size());
  for (const char c : text) mixed = mix(mixed ^ static_cast<std::uint8_t>(c));
  return mixed;
}

void Content::fill(std::uint64_t offset, std::span<char> out) const noexcept {
  std::uint64_t index = offset / 8;
  if (const auto skip = static_cast<std::size_t>(offset % 8); skip > 0 && !out.empty()) {
    const auto word = word_at(seed, index++);
    const std::size_t take = std::min(out.size(), word.size() - skip);
    std::memcpy(out.data(), word.data() + skip, take);
    out = out.subspan(take);
  }
  for (; out.size() >= 8; out = out.subspan(8)) {
    const auto word = word_at(seed, index++);
    std::memcpy(out.data(), word.data(), word.size());
  }
  if (!out.empty()) std::memcpy(out.data(), word_at(seed, index).data(), out.size());
}

garner::Digest Content::digest() const {
  Sha256 hash;
  std::vector<char> piece(static_cast<std::size_t>(std::min<std::uint64_t>(size, piece_size)));
  for (std::uint64_t offset = 0; offset < size; offset += piece.size()) {
    const std::span<char> bytes(piece.data(),
                                static_cast<std::size_t>(std::min<std::uint64_t>(size - offset, piece_size)));
    fill(offset, bytes);
    hash.update(bytes);
  }
  return hash.finish();
}

std::optional<garner::Digest> digest_file(const std::filesystem::path& file, std::uint64_t& size) {
  size = 0;
  std::ifstream in(file, std::ios::binary);
  if (!in) return std::nullopt;
  Sha256 hash;
  std::vector<char> piece(piece_size);
  while (in) {
    in.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    const auto got = static_cast<std::size_t>(in.gcount());
    hash.update({piece.data(), got});
    size += got;
  }
  if (in.bad()) return std::nullopt;
  return hash.finish();
}

}  // namespace worker
