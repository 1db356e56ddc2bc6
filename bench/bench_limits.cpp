// SPDX-License-Identifier: MIT
// The machine itself: multiply-adds from registers, and streams that read, update in place or copy,
// over sizes from the first cache to beyond the last. The rows of the other programs are fractions
// of these, measured again beside each of them.
#include "report.hpp"

namespace {

using bench::Index;
constexpr Index kBeyondKb = bench::kBeyondCaches >> 10;

// A probe is timed as a whole; its own result, the best of a few, is the counter.
void add_row(const std::string& name, const char* counter, auto probe) {
  bench::add("limit/" + name, [=](benchmark::State& state) {
    double best = 0.0;
    for (auto _ : state) best = std::max(best, probe());
    state.counters[counter] = best;
  });
}

void add_rows(bench::Flags& flags) {
  for (const int t : flags.threads) {
    const std::string threads = bench::threads_suffix(t);
    add_row("multiply_add" + threads, "FLOP/s", [=] { return bench::multiply_adds(t); });
    for (const auto stream : {bench::Stream::read, bench::Stream::update, bench::Stream::copy})
      for (const Index kb : {Index{16}, Index{256}, Index{4096}, Index{16384}, kBeyondKb}) {
        if (flags.quick && kb != 256 && kb != kBeyondKb) continue;
        add_row(bench::name_of(stream) + std::string("/KB:") + std::to_string(kb) + threads,
                "bytes/s", [=] { return bench::stream_rate(stream, kb << 10, t); });
      }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "", add_rows); }
