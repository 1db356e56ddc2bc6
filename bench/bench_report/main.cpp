// SPDX-License-Identifier: MIT
// Reads what the bench programs and peers wrote and makes of it, in the folder given, results.csv
// (every row), results.md (tables) and pictures; and the block for README.md, unless one of its
// rows was disturbed by other programs: then there is no such file afterwards. Prints the table of
// bars.
//
//   bench_report <folder> <readme block> <machine, in words> <file.json>...
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "bench_report/bars.hpp"
#include "bench_report/pictures.hpp"
#include "bench_report/tables.hpp"

namespace {

using namespace bench_report;

void write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) throw std::runtime_error(path.string() + " cannot be written");
}

std::string csv(const Rows& rows) {
  const std::vector<std::string> columns{"us",         "tokens/s",       "FLOP/s",     "bytes/s",
                                         "ns/element", "limit_fraction", "memory",     "rms_error",
                                         "max_error",  "checksum",       "fingerprint"};
  std::string out = "name";
  for (const auto& c : columns) out += "," + c;
  out += ",limit,samples_used,samples,spread,disturbed\n";
  for (const auto& [name, row] : rows.all()) {
    out += name;
    for (const auto& c : columns) {
      char text[32];
      std::snprintf(text, sizeof text, ",%.6g", row[c]);
      out += std::isfinite(row[c]) ? text : ",";
    }
    char text[64];
    std::snprintf(text, sizeof text, ",%d,%d,%.3f,%d\n", row.used, row.samples, row.spread,
                  row.disturbed ? 1 : 0);
    out += ",\"" + row.label + "\"" + text;
  }
  return out;
}

std::string libraries(const Rows& rows) {
  std::string out;
  for (const auto& [title, key] : {std::pair{"Eigen ", "eigen"},
                                   {"", "openblas"},
                                   {"BLIS ", "blis"},
                                   {"oneDNN ", "onednn"},
                                   {"PyTorch ", "torch"}})
    if (!rows.context(key).empty()) out += (out.empty() ? "" : "; ") + (title + rows.context(key));
  return out;
}

// "g++ 12.2.0 for vectors of 256 bits, 2026-11-22"
std::string build_and_day(const Rows& rows) {
  const std::string bytes = rows.context("vector_bytes");
  return rows.context("compiler") + " for vectors of " +
         (bytes.empty() ? "?" : std::to_string(8 * std::stoi(bytes))) + " bits, " +
         rows.context("date").substr(0, 10);
}

std::string about(const Rows& rows, const std::string& machine) {
  std::string out = machine + ". " + build_and_day(rows) + ". " + libraries(rows) + ".\n\n";
  MarkdownTable limits({"limit", "1 thread", "2 threads"});
  for (const auto& [title, key] : {std::pair{"multiply-add, GFLOP/s", "fma_gflops_"},
                                   {"read, GB/s", "read_gb_per_s_"},
                                   {"update in place, GB/s", "update_gb_per_s_"},
                                   {"copy, GB/s", "copy_gb_per_s_"}})
    limits.add({title, rows.context(key + std::string("1_thread")),
                rows.context(key + std::string("2_threads"))});
  out += limits.text();
  if (rows.disturbed() > 0)
    out += "\nOf " + std::to_string(rows.all().size()) + " rows, " +
           std::to_string(rows.disturbed()) +
           " had no sample free of waiting for a processor: others were at work. Do not quote "
           "them; they are marked ~ here, and in results.csv.\n";
  return out + "\n";
}

std::string results(const Rows& rows, const std::string& machine) {
  const std::vector<long> tokens{64, 256, 1024, 2048, 4096, 8192, 16384, 65536};
  std::string out = "# Results\n\n" + about(rows, machine);
  if (const auto bars = Bars(rows).text(); !bars.empty())
    out += "## Bars\n\nFractions and ratios; ? is a row that was not run.\n\n" + bars + "\n";
  const std::string unit = "Thousand tokens/s (GFLOP/s of useful work).";
  for (const int t : {1, 2})
    out += section("Operator over the length, threads: " + std::to_string(t), unit,
                   lengths(rows, operator_lines(), tokens, t));
  for (const int t : {1, 2})
    out += section("Layer over the length, threads: " + std::to_string(t), unit,
                   lengths(rows,
                           {{"parallel, one call", "layer/parallel"},
                            {"chunkwise", "layer/chunkwise"},
                            {"recurrent", "layer/recurrent"},
                            {"softmax attention", "layer/attention"}},
                           tokens, t));
  out += section("Ratios", "Above 1: A is faster.", ratios(rows, tokens));
  out += section("One more token, a layer", "Microseconds.", decoding(rows));
  out += section(
      "Model", "Tokens/s. PyTorch decodes after 64 tokens; for retention that makes no difference.",
      model(rows));
  out +=
      section("Errors", "Relative: rms over all outputs, and the largest over the largest output.",
              errors(rows));
  for (const int t : {1, 2}) {
    const std::string threads = ", threads: " + std::to_string(t);
    out +=
        section("Products, weights in the cache" + threads, "GFLOP/s.", products(rows, false, t));
    out += section("Products, weights in memory" + threads, "GB/s of weights.",
                   products(rows, true, t));
  }
  for (const auto& [title, prefix] : {std::pair{"Retention", "retention/"},
                                      {"Steps", "step/"},
                                      {"Attention", "attention/"},
                                      {"Products, float", "linear/float"},
                                      {"Products, bfloat16", "linear/bfloat16"},
                                      {"Norms", "norm/"},
                                      {"Gate", "gate/"},
                                      {"Rotation", "rotation/"},
                                      {"exp", "exp/"},
                                      {"sigmoid", "sigmoid/"},
                                      {"swish", "swish/"},
                                      {"GELU", "gelu"}})
    out += section(title, "", against_limits(rows, prefix));
  return out;
}

std::string readme(const Rows& rows, const std::string& machine) {
  return "Retention operator, 8 heads of Dk 64, Dv 128, float, one thread of\n" + machine + ",\n" +
         build_and_day(rows) + ": thousand tokens/s\n(GFLOP/s of useful work; " +
         "multiply-add peak in the same run: " + rows.context("fma_gflops_1_thread") +
         ").\nMore in `bench/results`; redo it with `bench/run.sh --readme`.\n\n" +
         lengths(rows, operator_lines(), {256, 1024, 4096, 16384}, 1).text() +
         "\nA model of d 512, 6 layers, 4 heads (`bench_model`), beside the same in PyTorch " +
         rows.context("torch") + ":\n\n" + model(rows).text();
}

// The mark of a disturbed row, see markdown.hpp.
bool quotable(const std::string& text) { return text.find(kDisturbed) == text.npos; }

int run(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: bench_report <folder> <readme block> <machine> <file.json>...\n");
    return 2;
  }
  const std::filesystem::path folder = argv[1], block = argv[2];
  const std::string machine = argv[3];
  Rows rows;
  for (int i = 4; i < argc; ++i) rows.read(argv[i]);
  std::filesystem::create_directories(folder);
  write(folder / "results.csv", csv(rows));
  write(folder / "results.md", results(rows, machine));
  std::filesystem::remove(block);
  if (const auto text = readme(rows, machine); quotable(text)) write(block, text);
  draw_all(rows, folder, machine);
  std::fputs((about(rows, machine) + Bars(rows).text()).c_str(), stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_report: %s\n", error.what());
    return 1;
  }
}
