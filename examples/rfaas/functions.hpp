// The functions of a library that arrives as bytes, by number: what rFaaS's executors keep for each client.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <memdl.hpp>

class Functions {
  public:
    using Function = std::uint32_t(void *input, std::uint32_t size, void *output);

    explicit Functions(std::size_t size) : buffer_(size) {}

    /// The library's bytes are received into this memory, and run there.
    void *memory() const { return buffer_.data(); }

    void process_library() {
        library_ = memdl::library::open(std::move(buffer_), memdl::options().name("functions"));
        for (const memdl::function_symbol &function : library_.functions()) names_.push_back(function.name);
        std::sort(names_.begin(), names_.end()); // Clients sort them, too.
    }

    std::size_t count() const { return names_.size(); }
    const std::string &name(std::size_t number) const { return names_.at(number); }
    Function *function(std::size_t number) const { return library_.get<Function>(names_.at(number)); }

  private:
    memdl::buffer buffer_;
    memdl::library library_;
    std::vector<std::string> names_;
};
