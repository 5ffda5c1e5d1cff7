// JSON, as far as a bundle's documents need it: objects, lists, strings, numbers.
#pragma once

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

class Document {
 public:
  Document() = default;
  explicit Document(const std::string& text) {
    const char* at = text.c_str();
    read(at, 0);
  }
  bool has(const std::string& name) const { return fields_.count(name) != 0; }
  const Document& operator[](const std::string& name) const {
    const auto found = fields_.find(name);
    if (found == fields_.end()) throw std::runtime_error("a document has no '" + name + "'");
    return found->second;
  }
  const std::map<std::string, Document>& fields() const { return fields_; }
  const std::vector<Document>& list() const { return list_; }
  const std::string& text() const { return text_; }
  double number() const { return number_; }

 private:
  static char next(const char*& at) {
    while (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
    return *at;
  }
  [[noreturn]] static void refuse() { throw std::runtime_error("a document is no JSON"); }

  void read(const char*& at, int depth) {
    const char first = next(at);
    if (depth > 50) refuse();
    if (first == '{' || first == '[') {
      const char last = first == '{' ? '}' : ']';
      at++;
      while (next(at) != last) {
        Document value;
        std::string name;
        if (first == '{') {
          name = string(at);
          if (next(at) != ':') refuse();
          at++;
        }
        value.read(at, depth + 1);
        if (first == '{') fields_[name] = value; else list_.push_back(value);
        if (next(at) == ',') at++;
        else if (*at != last) refuse();
      }
      at++;
    } else if (first == '"') {
      text_ = string(at);
    } else if (first == '-' || (first >= '0' && first <= '9')) {
      char* end;
      number_ = std::strtod(at, &end);
      at = end;
    } else {  // true, false, null: nothing here asks for them
      const char* begin = at;
      while (*at >= 'a' && *at <= 'z') at++;
      if (at == begin) refuse();
    }
  }

  static std::string string(const char*& at) {
    if (next(at) != '"') refuse();
    std::string found;
    for (at++; *at != '"'; at++) {
      if (*at == 0) refuse();
      if (*at != '\\') {
        found += *at;
      } else if (*++at == 'u') {  // no name or number that is used here has one
        for (int i = 0; i < 4; i++) if (*++at == 0) refuse();
        found += '?';
      } else {
        if (*at == 0) refuse();
        found += *at;
      }
    }
    at++;
    return found;
  }

  std::map<std::string, Document> fields_;
  std::vector<Document> list_;
  std::string text_;
  double number_ = 0;
};
