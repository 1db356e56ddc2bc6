// A line chart as an SVG file: one struct in, one text out, no dependency.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/svg_axis.hpp"
#include "common/svg_canvas.hpp"

namespace examples {

struct SvgSeries {
  std::string name = {};
  std::vector<std::pair<double, double>> points = {};  // (x, y); NaN, infinite: a gap in the line
  bool markers = false;
};

// A horizontal dashed line with its name in the right margin.
struct SvgReference {
  std::string name = {};
  double y = 0.0;
};

struct SvgChart {
  std::string title = {};
  std::string subtitle = {};  // machine, commit, settings: small under the title
  SvgAxis x = {};
  SvgAxis y = {};
  std::vector<SvgSeries> series = {};
  std::vector<SvgReference> references = {};
  int width = 800;
  int height = 480;
};

namespace internal {

// M. Okabe, K. Ito, "Color Universal Design", 2008, without yellow, which is faint on white.
inline constexpr std::array<const char*, 7> series_colours = {
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1a1a"};

// Lays the chart out; texts lie outside the plot, so that they never cover data.
class SvgWriter {
 public:
  explicit SvgWriter(const SvgChart& chart)
      : chart_(chart),
        canvas_(chart.width, chart.height, chart.title),
        x_(chart.x, values(chart, true), std::max(2, chart.width / 100), false),
        y_(chart.y, values(chart, false), std::max(2, chart.height / 60), true) {
    place();
  }

  // From back to front.
  std::string render() {
    heading();
    legend(true);
    grid();
    references();
    canvas_.begin_clip(left_ - 6, top_ - 6, right_ + 6, bottom_ + 6);
    for (std::size_t i = 0; i < chart_.series.size(); ++i) series(chart_.series[i], colour(i));
    canvas_.end_clip();
    return canvas_.finish();
  }

 private:
  static std::vector<double> values(const SvgChart& chart, bool horizontal) {
    std::vector<double> all;
    for (const SvgSeries& series : chart.series) {
      for (const auto& [x, y] : series.points) all.push_back(horizontal ? x : y);
    }
    for (const SvgReference& reference : chart.references) {
      if (!horizontal) all.push_back(reference.y);
    }
    return all;
  }

  static const char* colour(std::size_t i) { return series_colours[i % series_colours.size()]; }

  double pixel_x(double value) const { return left_ + x_.position(value) * (right_ - left_); }
  double pixel_y(double value) const { return bottom_ - y_.position(value) * (bottom_ - top_); }

  // Margins, from the texts that have to fit into them.
  void place() {
    left_ = edge + 20;
    for (double tick : y_.ticks()) {
      left_ = std::max(left_, edge + 8 + text_width(y_.text(tick), 12));
    }
    right_ = chart_.width - edge - 8;
    for (const SvgReference& reference : chart_.references) {
      right_ = std::min(right_, chart_.width - edge - 12 - text_width(reference.name, 12));
    }
    legend_top_ = edge + (chart_.title.empty() ? 0 : 24) + (chart_.subtitle.empty() ? 0 : 20);
    top_ = legend(false) + (chart_.y.label.empty() ? 10 : 34);
    bottom_ = chart_.height - edge - (chart_.x.label.empty() ? 18 : 40);
    if (right_ - left_ < 80 || bottom_ - top_ < 60) {
      throw std::invalid_argument("[render_svg] " + std::to_string(chart_.width) + " x " +
                                  std::to_string(chart_.height) +
                                  " leaves no room for the plot, expected a larger chart");
    }
  }

  void heading() {
    double y = edge + 16;
    canvas_.text(edge, y, 18, ink, "start", chart_.title, attr("font-weight", "600"));
    if (!chart_.title.empty()) y += 22;
    canvas_.text(edge, y - 1, 12.5, grey, "start", chart_.subtitle);
  }

  // Rows of line samples with names, between heading and plot. Returns where they end.
  double legend(bool draw) {
    double x = edge;
    double y = legend_top_;
    bool any = false;
    for (std::size_t i = 0; i < chart_.series.size(); ++i) {
      const SvgSeries& series = chart_.series[i];
      if (series.name.empty()) continue;
      const double width = 28 + text_width(series.name, 13) + 18;
      if (x > edge && x + width > chart_.width - edge) {
        x = edge;
        y += 20;
      }
      if (draw) {
        canvas_.line(x + 1, y + 12, x + 20, y + 12, colour(i), thick());
        if (series.markers) canvas_.marker(x + 10.5, y + 12, colour(i));
        canvas_.text(x + 28, y + 16.5, 13, ink, "start", series.name);
      }
      any = true;
      x += width;
    }
    return any ? y + 20 : y;
  }

  void grid() {
    for (double tick : y_.ticks()) {
      const double y = pixel_y(tick);
      canvas_.line(left_, y, right_, y, "#e6e9ed");
      canvas_.text(left_ - 8, y + 4, 12, grey, "end", y_.text(tick));
    }
    double free_from = 0.0;
    for (double tick : x_.ticks()) {
      const double x = pixel_x(tick);
      canvas_.line(x, bottom_, x, bottom_ + 5, axis);
      const double half = text_width(x_.text(tick), 12) / 2;
      if (x - half < free_from) continue;
      canvas_.text(x, bottom_ + 19, 12, grey, "middle", x_.text(tick));
      free_from = x + half + 6;
    }
    canvas_.line(left_, bottom_, right_, bottom_, axis);
    canvas_.text(edge, top_ - 16, 12.5, grey, "start", chart_.y.label);
    canvas_.text((left_ + right_) / 2, bottom_ + 41, 12.5, grey, "middle", chart_.x.label);
  }

  // Names stand in the right margin, level with their lines, or apart where they would touch.
  void references() {
    struct Label {
      double line_y;
      double text_y;
      std::string_view name;
    };
    std::vector<Label> labels;
    for (const SvgReference& reference : chart_.references) {
      if (!y_.contains(reference.y)) continue;
      const double y = pixel_y(reference.y);
      labels.push_back({y, y, reference.name});
    }
    std::sort(labels.begin(), labels.end(),
              [](const Label& a, const Label& b) { return a.line_y < b.line_y; });
    for (std::size_t i = 1; i < labels.size(); ++i) {
      labels[i].text_y = std::max(labels[i].text_y, labels[i - 1].text_y + 15);
    }
    // Those pushed below the plot push the ones above them back up.
    double lowest = bottom_;
    for (auto label = labels.rbegin(); label != labels.rend(); ++label) {
      label->text_y = std::min(label->text_y, lowest);
      lowest = label->text_y - 15;
    }
    for (const Label& label : labels) {
      canvas_.line(left_, label.line_y, right_, label.line_y, grey,
                   attr("stroke-width", 1.5) + attr("stroke-dasharray", "6 4"));
      canvas_.line(right_, label.line_y, right_ + 9, label.text_y, grey);
      canvas_.text(right_ + 12, label.text_y + 4, 12, ink, "start", label.name);
    }
  }

  void series(const SvgSeries& series, const char* stroke) {
    std::string path;
    bool pen_down = false;
    for (const auto& [x, y] : series.points) {
      const bool shown = x_.shows(x) && y_.shows(y);
      // "h0" after a move: a point between two gaps becomes a dot.
      const std::string at = shown ? num(pixel_x(x)) + "," + num(pixel_y(y)) : "";
      if (shown) path += pen_down ? "L" + at : "M" + at + "h0";
      pen_down = shown;
    }
    if (!path.empty()) canvas_.path(path, stroke, thick());
    for (const auto& [x, y] : series.points) {
      const bool shown = series.markers && x_.shows(x) && y_.shows(y);
      if (shown) canvas_.marker(pixel_x(x), pixel_y(y), stroke);
    }
  }

  static std::string thick() {
    return attr("stroke-width", 2.2) + attr("stroke-linejoin", "round") +
           attr("stroke-linecap", "round");
  }

  static constexpr double edge = 20;
  static constexpr const char* ink = "#1f2328";
  static constexpr const char* grey = "#57606a";
  static constexpr const char* axis = "#8c959f";

  const SvgChart& chart_;
  SvgCanvas canvas_;
  AxisMap x_;
  AxisMap y_;
  double left_ = 0;
  double right_ = 0;
  double top_ = 0;
  double bottom_ = 0;
  double legend_top_ = 0;
};

}  // namespace internal

// The whole document. Without a single point to show, the axes run from 0 to 1.
inline std::string render_svg(const SvgChart& chart) { return internal::SvgWriter(chart).render(); }

// Writes to a temporary name and renames, so that a viewer never sees half a picture.
inline void write_svg(const std::filesystem::path& path, const SvgChart& chart) {
  const std::string document = render_svg(chart);
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
  file << document;
  file.close();
  if (!file) {
    throw std::runtime_error("[write_svg] \"" + temporary.string() +
                             "\" cannot be written, expected a writable folder");
  }
  std::filesystem::rename(temporary, path);
}

}  // namespace examples
