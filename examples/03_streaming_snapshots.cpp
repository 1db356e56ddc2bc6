// A model writes token by token in constant memory. A session can be copied at any time: to look
// ahead, to try another continuation, and to come back.
#include <cstdio>
#include <string>
#include <vector>

#include "retnet/model/session.hpp"

using retnet::Token;
using Session = retnet::Session<float>;

// Tokens are bytes here; this model knows the letters a to z.
std::vector<Token> encode(const std::string& text) {
  std::vector<Token> tokens;
  for (const char c : text) tokens.push_back(c - 'a');
  return tokens;
}

std::string write(Session& session, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const auto token = session.next();
    if (!token) break;  // a stop token; there is none here
    text += static_cast<char>('a' + *token);
  }
  return text;
}

int main() {
  // Random weights, so the text is noise. What matters here is who remembers what.
  const retnet::RetNetModel<float> model(
      {.vocab = 26, .d_model = 128, .layers = 4, .retention = {.heads = 4}}, retnet::Seed{7});
  Session session(model, {.sampler = {.temperature = 0.8, .top_k = 10}, .seed = {2024}});
  session.prompt(encode("onceuponatime"));

  // 1. Memory does not grow with the text. A transformer keeps every key and value.
  std::printf("tokens read   session    attention cache of the same model\n");
  const std::size_t start = session.state().bytes();
  bool constant = true;
  for (const int tokens : {50, 500, 5000}) {
    while (session.state().position() < tokens) session.next();
    const auto cache = session.state().position() * 4 * 2 * 128 * static_cast<long>(sizeof(float));
    std::printf("%11ld   %4zu KiB   %6ld KiB\n", static_cast<long>(session.state().position()),
                session.state().bytes() / 1024, static_cast<long>(cache) / 1024);
    constant = constant && session.state().bytes() == start;
  }

  // 2. A fork looks ahead. The original then writes the same text: same state, same random numbers.
  Session ahead = session.fork();
  const std::string guess = write(ahead, 32), text = write(session, 32);
  std::printf("\nthe fork wrote       %s\nthe original wrote   %s\n", guess.c_str(), text.c_str());

  // 3. A snapshot, a detour, and back: as if the detour had never been.
  const Session snapshot = session.fork();
  session.prompt(encode("theend"));
  const std::string detour = write(session, 24);
  session = snapshot.fork();
  const std::string back = write(session, 32);
  session = snapshot.fork();
  const std::string again = write(session, 32);
  std::printf("\ndetour               theend%s\nrolled back          %s\nonce more            %s\n",
              detour.c_str(), back.c_str(), again.c_str());

  return constant && guess == text && back == again && detour != back.substr(0, 24) ? 0 : 1;
}
