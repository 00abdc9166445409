// SPDX-License-Identifier: BSL-1.0
//
// Digests of a file while its bytes go by: XXH3-128 always, which finds bad disks at the speed of memory, and the one
// that the description asks for, by libcrypto.
#pragma once

#include <openssl/evp.h>
#include <xxhash.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <string>

#include "garner/chunk.hpp"
#include "garner/error.hpp"

namespace garner {

/// XXH3-128 with seed 0, in its canonical (big-endian) form. Against accidents, not against attackers.
using Xxh3 = std::array<std::uint8_t, 16>;

/// What a file's bytes have for digests.
struct FoundDigests {
  Xxh3 xxh3{};
  std::optional<Digest> asked;  ///< of the algorithm that was asked for

  friend bool operator==(const FoundDigests&, const FoundDigests&) = default;
};

/// Digests bytes given in pieces. One thread at a time; movable.
class DigestStream {
 public:
  /// `algorithm`: what is wanted beside XXH3-128. Throws `Error` with `errc::invalid_digest` where libcrypto does not
  /// have it (MD5 in FIPS mode), and `std::bad_alloc`.
  explicit DigestStream(std::optional<DigestAlgorithm> algorithm = std::nullopt)
      : algorithm_(algorithm), xxh3_(XXH3_createState()) {
    if (algorithm_) evp_.reset(EVP_MD_CTX_new());
    if (!xxh3_ || (algorithm_ && !evp_)) throw std::bad_alloc();
    restart();
  }

  /// Forgets all bytes.
  void restart() {
    check(XXH3_128bits_reset(xxh3_.get()) == XXH_OK);
    if (evp_) check(EVP_DigestInit_ex(evp_.get(), evp_algorithm(), nullptr) == 1);
  }

  void update(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    check(XXH3_128bits_update(xxh3_.get(), bytes.data(), bytes.size()) == XXH_OK);
    if (evp_) check(EVP_DigestUpdate(evp_.get(), bytes.data(), bytes.size()) == 1);
  }

  /// Of all bytes so far; more may follow.
  [[nodiscard]] Xxh3 xxh3() const noexcept {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(xxh3_.get()));
    static_assert(sizeof(canonical.digest) == std::tuple_size_v<Xxh3>);
    Xxh3 out{};
    std::copy_n(canonical.digest, out.size(), out.begin());
    return out;
  }

  /// Likewise.
  [[nodiscard]] FoundDigests digests() const {
    FoundDigests found;
    found.xxh3 = xxh3();
    if (evp_) {
      const Evp copy(EVP_MD_CTX_new());
      if (!copy) throw std::bad_alloc();
      std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
      unsigned int size = 0;
      check(EVP_MD_CTX_copy_ex(copy.get(), evp_.get()) == 1);
      check(EVP_DigestFinal_ex(copy.get(), bytes.data(), &size) == 1);
      found.asked = Digest::parse(std::string(to_string(*algorithm_)) + ':' + detail::format_hex(bytes.data(), size));
    }
    return found;
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
    void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  };
  using Evp = std::unique_ptr<EVP_MD_CTX, Free>;

  void check(bool done) const {
    if (done) return;
    throw Error(errc::invalid_digest, std::string(algorithm_ ? to_string(*algorithm_) : "xxh3-128") +
                                          " is not available in this program's libcrypto");
  }

  [[nodiscard]] const EVP_MD* evp_algorithm() const noexcept {
    switch (*algorithm_) {
      case DigestAlgorithm::md5: return EVP_md5();
      case DigestAlgorithm::sha1: return EVP_sha1();
      case DigestAlgorithm::sha256: return EVP_sha256();
      case DigestAlgorithm::sha512: return EVP_sha512();
    }
    return nullptr;
  }

  std::optional<DigestAlgorithm> algorithm_;
  std::unique_ptr<XXH3_state_t, Free> xxh3_;
  Evp evp_;
};

}  // namespace garner
