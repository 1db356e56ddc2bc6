// SPDX-License-Identifier: MIT
// The bodies of generation.hpp.
#pragma once

#include <algorithm>
#include <chrono>

#include "retnet/io/pretrained.hpp"
#include "retnet/model/session.hpp"
#include "retnet_generate/generation.hpp"

namespace retnet_generate {

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// In pieces of whole chunks, so that a long text takes no more memory than a short one, and can be
// interrupted.
template <class Session>
Rate read_prompt(const Options& o, const Job& job, Session& session) {
  constexpr Index kPiece = 4096;
  const auto piece = static_cast<std::size_t>((kPiece + o.chunk - 1) / o.chunk * o.chunk);
  const Stopwatch watch;
  std::span<const Token> rest(job.prompt);
  while (!rest.empty() && !job.interrupted()) {
    const auto now = rest.first(std::min(rest.size(), piece));
    session.prompt(now);
    rest = rest.subspan(now.size());
  }
  return {static_cast<Index>(job.prompt.size() - rest.size()), watch.seconds()};
}

template <class Session>
Rate write_text(const Options& o, const Job& job, Session& session) {
  const Stopwatch watch;
  Index drawn = 0;
  while ((o.max_tokens == 0 || drawn < o.max_tokens) && !job.interrupted()) {
    const auto token = session.next();
    if (!token) break;
    ++drawn;
    if (!job.emit(*token)) break;
  }
  return {drawn, watch.seconds()};
}

template <class Weight>
Rates generate_with(const Options& o, const Job& job) {
  const auto model = retnet::load_pretrained<float, Weight>(o.model);
  retnet::Cpu ctx(o.threads);
  retnet::Session<float, Weight> session(
      model, {.sampler = o.sampler, .stop = job.stop, .seed = {o.seed}, .prefill_chunk = o.chunk},
      1, &ctx);
  Rates rates;
  rates.prompt = read_prompt(o, job, session);
  if (!job.interrupted()) rates.generated = write_text(o, job, session);
  return rates;
}

}  // namespace retnet_generate
