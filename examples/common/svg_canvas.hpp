// The few SVG elements a chart needs, appended to one string.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "common/svg_axis.hpp"

namespace examples::internal {

inline std::string xml_escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      // XML 1.0 has no place for control characters.
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

// Estimate for a sans-serif face, on the wide side. UTF-8: continuation bytes have no width.
inline double text_width(std::string_view text, double size) {
  constexpr std::string_view narrow = " .,:;'|!iljtfrI()[]/-";
  double ems = 0.0;
  for (char c : text) {
    if ((static_cast<unsigned char>(c) & 0xc0) == 0x80) continue;
    ems += narrow.find(c) != narrow.npos ? 0.38 : 0.63;
  }
  return ems * size;
}

inline std::string num(double pixels) { return fixed(pixels, 1); }

// ` name="value"`
inline std::string attr(std::string_view name, std::string_view value) {
  return " " + std::string(name) + "=\"" + xml_escape(value) + "\"";
}
inline std::string attr(std::string_view name, double pixels) { return attr(name, num(pixels)); }

class SvgCanvas {
 public:
  // A white page with rounded corners: it reads the same on a light and on a dark web page.
  SvgCanvas(int width, int height, std::string_view title) {
    out_ = "<svg xmlns=\"http://www.w3.org/2000/svg\"" + attr("width", width) +
           attr("height", height) +
           attr("viewBox", "0 0 " + std::to_string(width) + " " + std::to_string(height)) +
           attr("role", "img") +
           attr("font-family", "Helvetica, Arial, 'DejaVu Sans', sans-serif") + ">\n<title>" +
           xml_escape(title) + "</title>\n<rect" + attr("x", 0.5) + attr("y", 0.5) +
           attr("width", width - 1) + attr("height", height - 1) + attr("rx", 8) +
           attr("fill", "#ffffff") + attr("stroke", "#d8dee4") + "/>\n";
  }

  void begin_clip(double left, double top, double right, double bottom) {
    out_ += "<clipPath id=\"plot\"><rect" + attr("x", left) + attr("y", top) +
            attr("width", right - left) + attr("height", bottom - top) +
            "/></clipPath>\n<g clip-path=\"url(#plot)\">\n";
  }
  void end_clip() { out_ += "</g>\n"; }

  void line(double x1, double y1, double x2, double y2, std::string_view stroke,
            const std::string& more = {}) {
    path("M" + num(x1) + "," + num(y1) + "L" + num(x2) + "," + num(y2), stroke, more);
  }

  void path(std::string_view data, std::string_view stroke, const std::string& more) {
    out_ +=
        "<path" + attr("d", data) + attr("fill", "none") + attr("stroke", stroke) + more + "/>\n";
  }

  void marker(double x, double y, std::string_view fill) {
    out_ += "<circle" + attr("cx", x) + attr("cy", y) + attr("r", 4) + attr("fill", fill) +
            attr("stroke", "#ffffff") + attr("stroke-width", 1.2) + "/>\n";
  }

  // anchor: start, middle or end of the text is at x.
  void text(double x, double y, double size, std::string_view fill, std::string_view anchor,
            std::string_view content, const std::string& more = {}) {
    if (content.empty()) return;
    out_ += "<text" + attr("x", x) + attr("y", y) + attr("font-size", size) + attr("fill", fill) +
            attr("text-anchor", anchor) + more + ">" + xml_escape(content) + "</text>\n";
  }

  std::string finish() { return std::move(out_) + "</svg>\n"; }

 private:
  std::string out_;
};

}  // namespace examples::internal
