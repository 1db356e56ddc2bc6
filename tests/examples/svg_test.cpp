#include "common/svg.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace examples {
namespace {

const double nan = std::nan("");
const double infinity = std::numeric_limits<double>::infinity();

std::size_t count(std::string_view text, std::string_view part) {
  std::size_t found = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++found;
  return found;
}

// Tags nest and close, attributes are quoted, and no "<" or bare "&" stands in a text.
testing::AssertionResult well_formed(std::string_view svg) {
  std::vector<std::string> open;
  for (std::size_t i = 0; i < svg.size(); ++i) {
    if (svg[i] == '&' && svg.substr(i, 8).find(';') == svg.npos) {
      return testing::AssertionFailure() << "bare & at " << i;
    }
    if (svg[i] != '<') continue;
    bool quoted = false;
    std::size_t end = i + 1;
    for (; end < svg.size() && (quoted || svg[end] != '>'); ++end) {
      if (svg[end] == '"') quoted = !quoted;
      if (svg[end] == '<') return testing::AssertionFailure() << "bare < at " << end;
    }
    const std::string_view tag = svg.substr(i + 1, end - i - 1);
    const std::string name(tag.substr(0, tag.find_first_of(" /", 1)));
    if (tag[0] == '/') {
      if (open.empty() || "/" + open.back() != tag) {
        return testing::AssertionFailure() << "unexpected <" << tag << ">";
      }
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    i = end;
  }
  if (!open.empty()) return testing::AssertionFailure() << open.back() << " is not closed";
  return testing::AssertionSuccess();
}

SvgChart sample() {
  SvgChart chart;
  chart.title = "Bits per byte";
  chart.subtitle = "2 cores";
  chart.x = {.label = "minutes"};
  chart.y = {.label = "bits per byte"};
  chart.series = {{"train", {{0.01, 5.2}, {1.0, 2.4}, {2.0, 2.0}}},
                  {"held out", {{0.5, 3.0}, {2.0, 2.1}}, true}};
  chart.references = {{"xz", 2.07}, {"order-3 n-gram", 2.03}};
  return chart;
}

std::vector<std::string> tick_texts(const SvgAxis& axis, const std::vector<double>& values,
                                    bool vertical) {
  const internal::AxisMap map(axis, values, 6, vertical);
  std::vector<std::string> texts;
  for (double tick : map.ticks()) texts.push_back(map.text(tick));
  return texts;
}

using Texts = std::vector<std::string>;

TEST(Svg, IsWellFormedAndComplete) {
  const std::string svg = render_svg(sample());
  EXPECT_TRUE(well_formed(svg)) << svg;
  EXPECT_EQ(svg.rfind("<svg xmlns=\"http://www.w3.org/2000/svg\"", 0), 0u);
  for (const char* text : {">Bits per byte<", ">2 cores<", ">minutes<", ">bits per byte<",
                           ">train<", ">held out<", ">xz<", ">order-3 n-gram<"}) {
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  }
  EXPECT_EQ(count(svg, "<circle"), 3u);  // two points and the legend's sample
  EXPECT_EQ(count(svg, "stroke-dasharray"), 2u);
}

TEST(Svg, EscapesTextsAndDropsControlCharacters) {
  SvgChart chart = sample();
  chart.title = "a < b & \"c\" > 'd'\x01\n";
  chart.series[0].name = "</svg>";
  chart.x.unit = "<&>";
  const std::string svg = render_svg(chart);
  EXPECT_TRUE(well_formed(svg)) << svg;
  EXPECT_NE(svg.find("<title>a &lt; b &amp; &quot;c&quot; &gt; &#39;d&#39;  </title>"),
            std::string::npos);
  EXPECT_EQ(count(svg, "</svg>"), 1u);
}

TEST(Svg, SkipsWhatAnAxisCannotShow) {
  SvgChart chart;
  chart.y.scale = SvgScale::log;
  chart.series = {{"", {{1, 10}, {2, nan}, {3, 0}, {4, -5}, {infinity, 7}, {5, 100}, {6, 50}}}};
  chart.references = {{"nothing", nan}, {"below", -1.0}};
  const std::string svg = render_svg(chart);
  EXPECT_TRUE(well_formed(svg)) << svg;
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_EQ(svg.find("inf"), std::string::npos);
  EXPECT_EQ(count(svg, "stroke-dasharray"), 0u);
  EXPECT_EQ(count(svg, "h0"), 2u);  // the gap leaves two pieces
}

TEST(Svg, DrawsEmptyChartsAndOddValues) {
  std::vector<SvgChart> charts(7);
  charts[1].series = {{"empty", {}}};
  charts[2].series = {{"only NaN", {{nan, nan}}}};
  charts[3].series = {{"one point", {{3, 3}}}};
  charts[4].series = {{"huge", {{1e-140, -1e149}, {1e140, 1e149}}}};
  charts[5].series = {{"constant", {{0, 1e17}, {1, 1e17 + 16}}}};
  charts[6] = sample();
  charts[6].y.min = 9.0;  // above all data
  for (SvgScale scale : {SvgScale::linear, SvgScale::log}) {
    for (SvgChart& chart : charts) {
      chart.x.scale = scale;
      chart.y.scale = scale;
      const std::string svg = render_svg(chart);
      EXPECT_TRUE(well_formed(svg)) << svg;
      EXPECT_EQ(svg.find("nan"), std::string::npos);
      EXPECT_EQ(svg.find("inf"), std::string::npos);
    }
  }
}

TEST(Svg, PutsLinearTicksOnRoundValues) {
  EXPECT_EQ(tick_texts({}, {0.03, 1.97}, false), (Texts{"0", "0.5", "1", "1.5", "2"}));
  EXPECT_EQ(tick_texts({}, {1.8, 5.2}, true), (Texts{"1", "2", "3", "4", "5", "6"}));
  EXPECT_EQ(tick_texts({}, {0, 480000}, true),
            (Texts{"0", "100k", "200k", "300k", "400k", "500k"}));
  EXPECT_EQ(tick_texts({.min = 0.0, .max = 0.3}, {7}, true),
            (Texts{"0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"}));
  EXPECT_EQ(tick_texts({.unit = "%"}, {0, 100}, true),
            (Texts{"0%", "20%", "40%", "60%", "80%", "100%"}));
}

TEST(Svg, PutsLogTicksOnPowersOfTen) {
  const SvgAxis axis = {.scale = SvgScale::log};
  EXPECT_EQ(tick_texts(axis, {256, 1048576}, false), (Texts{"1k", "10k", "100k", "1M"}));
  EXPECT_EQ(tick_texts(axis, {1.5, 90}, false), (Texts{"2", "5", "10", "20", "50"}));
  EXPECT_EQ(tick_texts(axis, {1.6, 5.2}, true), (Texts{"1", "2", "3", "4", "5", "6"}));
  EXPECT_EQ(tick_texts(axis, {3e-16, 2e-5}, true),
            (Texts{"10⁻¹⁶", "10⁻¹⁴", "10⁻¹²", "10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴"}));
}

TEST(Svg, WritesTickTextsWithPrefixesAndUnits) {
  EXPECT_EQ(internal::tick_text(0.0, ""), "0");
  EXPECT_EQ(internal::tick_text(-2500.0, ""), "-2.5k");
  EXPECT_EQ(internal::tick_text(999.9999999999, ""), "1k");
  EXPECT_EQ(internal::tick_text(5e7, "B"), "50 MB");
  EXPECT_EQ(internal::tick_text(2e-3, "s"), "2 ms");
  EXPECT_EQ(internal::tick_text(0.5, "min"), "0.5 min");
  EXPECT_EQ(internal::tick_text(2.5e-7, ""), "2.5·10⁻⁷");
  EXPECT_EQ(internal::tick_text(1e15, ""), "10¹⁵");
}

TEST(Svg, KeepsReferenceNamesApart) {
  SvgChart chart = sample();
  chart.references = {{"ref", 2.0}, {"ref", 2.001}, {"ref", 2.002}, {"ref", 2.003}};
  const std::string svg = render_svg(chart);
  std::vector<double> heights;
  for (auto end = svg.find(">ref<"); end != svg.npos; end = svg.find(">ref<", end + 1)) {
    heights.push_back(std::stod(svg.substr(svg.rfind(" y=\"", end) + 4)));
  }
  ASSERT_EQ(heights.size(), 4u);
  for (std::size_t i = 1; i < 4; ++i) EXPECT_GE(heights[i] - heights[i - 1], 14.9);
}

TEST(Svg, RefusesASizeWithoutRoom) {
  SvgChart chart = sample();
  chart.width = 150;
  EXPECT_THROW(render_svg(chart), std::invalid_argument);
}

TEST(Svg, WritesTheFileAndLeavesNoTemporary) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "svg_test.svg";
  write_svg(path, sample());
  std::ifstream file(path, std::ios::binary);
  const std::string read{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  EXPECT_EQ(read, render_svg(sample()));
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".tmp"));
  EXPECT_THROW(write_svg("/no/such/folder/a.svg", sample()), std::runtime_error);
}

}  // namespace
}  // namespace examples
