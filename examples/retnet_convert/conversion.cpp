// SPDX-License-Identifier: MIT
// Weights go through memory in the type that they are stored in, or one that holds it exactly.
#include "retnet_convert/conversion.hpp"

#include "common/interrupt.hpp"
#include "retnet_convert/report.hpp"
#include "retnet_convert/staged_folder.hpp"

namespace retnet_convert {
namespace {

template <class Scalar, class Weight>
void write_as(const Options& o, const Summary& read, const StagedFolder& folder) {
  const auto model = retnet::load_pretrained<Scalar, Weight>(o.from, {.compat = o.compat});
  retnet::save_pretrained(
      folder.path().string(), model, *o.dialect,
      {.dtype = o.dtype.value_or(read.info.dtype), .max_shard_bytes = o.max_shard});
}

void write(const Options& o, const Summary& read, const StagedFolder& folder) {
  switch (read.info.dtype) {
    case retnet::Dtype::f64: return write_as<double, double>(o, read, folder);
    case retnet::Dtype::bf16: return write_as<float, retnet::bfloat16>(o, read, folder);
    default: return write_as<float, float>(o, read, folder);
  }
}

}  // namespace

void inspect(const Options& o) { print_report(o.from, summarize(o.from, o.compat)); }

int convert(const Options& o) {
  const examples::InterruptGuard interrupt;
  const StagedFolder folder(o.to, o.force);
  const Summary read = summarize(o.from, o.compat);
  write(o, read, folder);
  const Summary written = summarize(folder.path().string(), o.compat);
  if (interrupt.requested()) return 128 + interrupt.signal();
  folder.commit();
  std::printf("read %s: %s\n", o.from.c_str(), one_line(read).c_str());
  std::printf("wrote %s: %s\n", folder.target().c_str(), one_line(written).c_str());
  return 0;
}

}  // namespace retnet_convert
