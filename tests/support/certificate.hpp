// SPDX-License-Identifier: BSL-1.0
//
// Certificates for tests, made to order and signed by themselves.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

namespace garner::test {

/// Writes `certificate.pem` and `key.pem` into `directory`: for `alternative_name` (as OpenSSL writes it:
/// `IP:127.0.0.1`), valid for a day already, until `seconds_left` from now. The key is encrypted where there is a
/// password.
inline void make_certificate(const std::filesystem::path& directory, const std::string& alternative_name,
                             long seconds_left = 3600, const std::string& password = {}) {
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), X509_free);
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -24L * 3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), seconds_left);
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME* const name = X509_get_subject_name(certificate.get());
  const std::array<unsigned char, 7> common = {'g', 'a', 'r', 'n', 'e', 'r', 0};
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, common.data(), 6, -1, 0);
  X509_set_issuer_name(certificate.get(), name);
  const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
      X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, alternative_name.c_str()), X509_EXTENSION_free);
  X509_add_ext(certificate.get(), extension.get(), -1);
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  const auto open = [&directory](const char* file) {
    return std::unique_ptr<std::FILE, int (*)(std::FILE*)>(std::fopen((directory / file).c_str(), "w"), std::fclose);
  };
  PEM_write_X509(open("certificate.pem").get(), certificate.get());
  std::string secret = password;
  PEM_write_PrivateKey(open("key.pem").get(), key.get(), secret.empty() ? nullptr : EVP_aes_128_cbc(), nullptr, 0,
                       nullptr, secret.empty() ? nullptr : secret.data());
}

}  // namespace garner::test
