// The same by a memfd and dlopen, as it is done today, to compare with: a descriptor, a mapping, and a walk through the
// loaded library's dynamic section, since dlopen lists no symbols. gdb hangs on a process that has done this.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

class MemfdFunctions {
  public:
    using Function = std::uint32_t(void *input, std::uint32_t size, void *output);

    explicit MemfdFunctions(std::size_t size) : size_(size), fd_(memfd_create("functions", 0)) {
        if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(size)) != 0) throw std::runtime_error("memfd_create");
        memory_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
        if (memory_ == MAP_FAILED) throw std::runtime_error("mmap");
    }
    MemfdFunctions(const MemfdFunctions &) = delete;
    MemfdFunctions &operator=(const MemfdFunctions &) = delete;
    ~MemfdFunctions() {
        munmap(memory_, size_);
        if (library_) dlclose(library_);
        close(fd_);
    }

    void *memory() const { return memory_; }

    void process_library() {
        library_ = dlopen(("/proc/self/fd/" + std::to_string(fd_)).c_str(), RTLD_NOW);
        if (!library_) throw std::runtime_error(dlerror());
        link_map *map = nullptr;
        if (dlinfo(library_, RTLD_DI_LINKMAP, &map) != 0) throw std::runtime_error(dlerror());
        const ElfW(Sym) *symbols = nullptr;
        const char *strings = nullptr;
        for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; ++entry) {
            if (entry->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym) *>(entry->d_un.d_ptr);
            if (entry->d_tag == DT_STRTAB) strings = reinterpret_cast<const char *>(entry->d_un.d_ptr);
        }
        // The dynamic section does not state the number of symbols. Linkers put the strings behind them.
        for (const ElfW(Sym) *symbol = symbols; reinterpret_cast<const char *>(symbol) < strings; ++symbol)
            if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC) names_.push_back(strings + symbol->st_name);
        std::sort(names_.begin(), names_.end());
    }

    std::size_t count() const { return names_.size(); }
    const std::string &name(std::size_t number) const { return names_.at(number); }
    Function *function(std::size_t number) const {
        void *found = dlsym(library_, names_.at(number).c_str());
        if (!found) throw std::runtime_error(dlerror());
        return reinterpret_cast<Function *>(found);
    }

  private:
    std::size_t size_;
    int fd_;
    void *memory_ = nullptr;
    void *library_ = nullptr;
    std::vector<std::string> names_;
};
