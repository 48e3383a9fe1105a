// memdl runs a shared library straight from bytes in memory. This is the C API as C++17, in a header; link
// with memdl. memdl.h documents the functions.
//
//     memdl::library library = memdl::library::open(bytes, memdl::options().name("plugin"));
//     auto foo = library.get<int(int)>("foo");
//     foo(42);
//
// The destructor of a handle closes what it holds. A moved-from or default-constructed handle is empty.
// A failure throws memdl::error. Exceptions of libraries' constructors pass unchanged.
#ifndef MEMDL_HPP
#define MEMDL_HPP

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "memdl.h"

namespace memdl {

/// Something that a library needs and that is not there: a memdl_missing that owns its strings.
struct missing {
    memdl_missing_kind kind;
    std::string name, needed_by;
    std::optional<std::string> version, reason;

    explicit missing(const memdl_missing &from)
        : kind(static_cast<memdl_missing_kind>(from.kind)), name(from.name),
          needed_by(from.needed_by) {
        if (from.version) version = from.version;
        if (from.reason) reason = from.reason;
    }
};

/// A failure, with the text of memdl_error().
class error : public std::runtime_error {
  public:
    explicit error(const std::string &text, memdl_error_kind code = MEMDL_ERROR_NONE,
                   std::vector<memdl::missing> missing = {})
        : std::runtime_error(text), code_(code),
          missing_(std::make_shared<const std::vector<memdl::missing>>(std::move(missing))) {}

    /// The kind of failure.
    memdl_error_kind code() const noexcept { return code_; }

    /// The libraries, versions and symbols that are not there.
    const std::vector<memdl::missing> &missing() const noexcept { return *missing_; }

    /// The failure of this thread's last call that failed.
    static error last() {
        const char *text = memdl_error();
        const std::string copy = text ? text : "memdl: unknown error";
        const auto code = static_cast<memdl_error_kind>(memdl_error_code());
        std::vector<memdl::missing> missing;
        memdl_error_missing(
            [](const memdl_missing *found, void *user) {
                static_cast<std::vector<memdl::missing> *>(user)->emplace_back(*found);
                return 0;
            },
            &missing);
        return error(copy, code, std::move(missing));
    }

  private:
    memdl_error_kind code_;
    // Shared, so that copying the exception does not throw.
    std::shared_ptr<const std::vector<memdl::missing>> missing_;
};

/// The version of the library that runs, as a text.
inline std::string version() { return memdl_version_text(); }

namespace detail {
inline void check(int status) {
    if (status != 0) throw error::last();
}

template <class T> T *check(T *pointer) {
    if (!pointer) throw error::last();
    return pointer;
}

struct deleter {
    void operator()(memdl_library *library) const { memdl_close(library); }
    void operator()(memdl_template *tmpl) const noexcept { memdl_template_free(tmpl); }
    void operator()(memdl_pool *pool) const { memdl_pool_free(pool); }
    void operator()(memdl_buffer *buffer) const noexcept { memdl_buffer_free(buffer); }
    void operator()(memdl_options *options) const noexcept { memdl_options_free(options); }
    void operator()(memdl_namespace *space) const noexcept { memdl_namespace_free(space); }
    void operator()(memdl_report *report) const noexcept { memdl_report_free(report); }
};

template <class T> using handle = std::unique_ptr<T, deleter>;
} // namespace detail

class library;

/// An exported symbol: a memdl_symbol that owns its strings.
struct symbol {
    std::string name;
    std::optional<std::string> version;
    int kind;
    bool is_default_version;
    std::uint64_t size;
    std::uintptr_t address;

    explicit symbol(const memdl_symbol &from)
        : name(from.name), kind(from.kind), is_default_version(from.is_default_version != 0),
          size(from.size), address(from.address) {
        if (from.version) version = from.version;
    }
};

/// A function symbol, defined or imported: a memdl_function_symbol that owns its string.
struct function_symbol {
    std::uint32_t index;
    std::string name;
    std::uint64_t value;
    bool is_defined;

    explicit function_symbol(const memdl_function_symbol &from)
        : index(from.index), name(from.name), value(from.value), is_defined(from.is_defined != 0) {}
};

/// A function that an address lies in: a memdl_frame that owns its strings.
struct frame {
    std::string image;
    std::optional<std::string> function, linkage_name, file;
    std::uint32_t line, column;
    bool is_inlined;
    std::uint64_t address;

    explicit frame(const memdl_frame &from)
        : image(from.image), line(from.line), column(from.column),
          is_inlined(from.is_inlined != 0), address(from.address) {
        if (from.function) function = from.function;
        if (from.linkage_name) linkage_name = from.linkage_name;
        if (from.file) file = from.file;
    }
};

/// An image that is loaded: a memdl_image_info that owns what it has.
struct image_info {
    std::string name;
    std::uintptr_t start, end, load_bias;
    std::vector<unsigned char> build_id;
    memdl_debug debug;
    /// The prepared::id of the template that it is an instance of.
    std::optional<std::uint64_t> template_id;
    std::uint64_t load;
    std::size_t holders;

    explicit image_info(const memdl_image_info &from)
        : name(from.name), start(from.start), end(from.end), load_bias(from.load_bias),
          debug(static_cast<memdl_debug>(from.debug)), load(from.load), holders(from.holders) {
        if (from.build_id) build_id.assign(from.build_id, from.build_id + from.build_id_len);
        if (from.template_id) template_id = from.template_id;
    }
};

/// All images that are loaded, in the order of their loads; see memdl_images.
inline std::vector<image_info> images() {
    std::vector<image_info> images;
    detail::check(memdl_images(
        [](const memdl_image_info *found, void *user) {
            static_cast<std::vector<image_info> *>(user)->emplace_back(*found);
            return 0;
        },
        &images));
    return images;
}

/// Counters; see memdl_get_statistics.
inline memdl_statistics statistics() {
    memdl_statistics statistics;
    detail::check(memdl_get_statistics(&statistics, sizeof statistics));
    return statistics;
}

using log_function = std::function<void(memdl_log_level level, const char *text)>;

/// Calls `logger` with every event of this level, or of one before it, in any thread. An empty function removes it. Its
/// exceptions are dropped. See memdl_set_log.
inline void set_log(memdl_log_level level, log_function logger) {
    if (!logger) return detail::check(memdl_set_log(level, nullptr, nullptr, nullptr));
    auto owned = std::make_unique<log_function>(std::move(logger));
    detail::check(memdl_set_log(
        level,
        [](int number, const char *text, void *user) noexcept {
            try {
                (*static_cast<log_function *>(user))(static_cast<memdl_log_level>(number), text);
            } catch (...) {
            }
        },
        owned.release(),
        [](void *user) noexcept { delete static_cast<log_function *>(user); }));
}

/// Returns the memory that is kept for further libraries to the system.
inline void release_memory() { memdl_release_memory(); }
/// Chooses whether memory that is kept is wiped first; see memdl_wipe_kept_memory.
inline void wipe_kept_memory(bool wipe) { memdl_wipe_kept_memory(wipe); }

/// The functions that an address lies in, the innermost inlined one first; see memdl_symbolize.
inline std::vector<frame> symbolize(const void *address) {
    std::vector<frame> frames;
    detail::check(memdl_symbolize(
        address,
        [](const memdl_frame *found, void *user) {
            static_cast<std::vector<frame> *>(user)->emplace_back(*found);
            return 0;
        },
        &frames));
    return frames;
}

/// Memory to receive a library into.
class buffer {
  public:
    explicit buffer(std::size_t size) : handle_(detail::check(memdl_buffer_new(size))) {}

    unsigned char *data() const noexcept {
        return handle_ ? static_cast<unsigned char *>(memdl_buffer_data(handle_.get())) : nullptr;
    }
    std::size_t size() const noexcept { return handle_ ? memdl_buffer_size(handle_.get()) : 0; }
    /// Makes it this long. Added bytes are zero. If it grows, data() may change.
    void resize(std::size_t size) { detail::check(memdl_buffer_resize(handle_.get(), size)); }
    unsigned char *begin() const noexcept { return data(); }
    unsigned char *end() const noexcept { return data() + size(); }

    memdl_buffer *get() const noexcept { return handle_.get(); }
    /// Releases ownership of the handle.
    memdl_buffer *release() noexcept { return handle_.release(); }

  private:
    detail::handle<memdl_buffer> handle_;
};

/// Libraries that find each other; see memdl_namespace.
class name_space {
  public:
    name_space() : handle_(detail::check(memdl_namespace_new())) {}

    memdl_namespace *get() const noexcept { return handle_.get(); }

  private:
    detail::handle<memdl_namespace> handle_;
};

/// What a provider supplies. An empty one says that it does not have the library, which is then searched elsewhere.
class provided {
  public:
    provided() = default;
    /// A library that is loaded. It must not be closed before the load has returned.
    provided(const library &library);
    /// The library runs in the buffer, and no byte is copied.
    provided(buffer &&buffer) : buffer_(buffer.release()) {}
    /// Bytes that are valid until the provider is called again in this thread. They are copied.
    static provided bytes(const void *bytes, std::size_t size) {
        provided answer;
        answer.bytes_ = bytes;
        answer.size_ = size;
        return answer;
    }
    /// From any contiguous container of bytes.
    template <class Bytes> static provided bytes(const Bytes &bytes) {
        static_assert(sizeof(*bytes.data()) == 1, "bytes");
        return provided::bytes(bytes.data(), bytes.size());
    }

    /// Names the library that the bytes become; see memdl_provided.
    provided &named(std::string name) & {
        name_ = std::move(name);
        return *this;
    }
    provided &&named(std::string name) && { return std::move(named(std::move(name))); }

  private:
    friend class options;

    // Fills what the C API reads. `name` outlives it.
    int fill(memdl_provided &answer, std::string &name) && noexcept {
        if (name_) {
            name = std::move(*name_);
            answer.name = name.c_str();
        }
        answer.library = library_;
        answer.bytes = bytes_;
        answer.len = size_;
        answer.buffer = buffer_.release();
        return answer.library || answer.bytes || answer.buffer;
    }

    const memdl_library *library_ = nullptr;
    const void *bytes_ = nullptr;
    std::size_t size_ = 0;
    detail::handle<memdl_buffer> buffer_;
    std::optional<std::string> name_;
};

/// Load options. Calls can be chained: options().name("x").global(true).
class options {
  public:
    using resolver_function = std::function<const void *(const memdl_request &)>;
    using verifier_function = std::function<void(const memdl_image &)>;
    /// What it throws is the reason for which the load fails.
    using provider_function = std::function<provided(const memdl_library_request &)>;
    using import_filter_function = std::function<bool(const memdl_request &)>;

    options() : handle_(detail::check(memdl_options_new())) {}

    options &name(const std::string &name) & {
        return checked(memdl_options_set_name(get(), name.c_str()));
    }
    options &define(const std::string &name, const void *address) & {
        return checked(memdl_options_define(get(), name.c_str(), address));
    }
    /// Defines a function.
    template <class R, class... A>
    options &define(const std::string &name, R (*function)(A...)) & {
        return define(name, reinterpret_cast<const void *>(function));
    }
    /// Called for every symbol that nothing else defines, by all threads that load. Returns null if there
    /// is none. It must not throw.
    options &resolver(resolver_function resolver) & {
        auto owned = std::make_unique<resolver_function>(std::move(resolver));
        checked(memdl_options_set_resolver(get(), &ask, owned.get()));
        resolver_ = std::move(owned);
        return *this;
    }
    /// Called with the bytes of every library before anything else reads them. It refuses them by an
    /// exception, whose what() is the reason. See memdl_options_set_verifier.
    options &verify(verifier_function verifier) & {
        auto owned = std::make_unique<verifier_function>(std::move(verifier));
        return checked(memdl_options_set_verifier(
            get(), &verify_with, owned.release(), &free_function<verifier_function>));
    }
    /// Libraries may bind only to these symbols of the host; see memdl_options_allow_imports.
    options &allow_imports(const std::vector<std::string> &names) & {
        auto pointers = c_strings(names);
        return checked(memdl_options_allow_imports(get(), pointers.data(), pointers.size()));
    }
    /// Libraries may bind to all symbols of the host but these.
    options &deny_imports(const std::vector<std::string> &names) & {
        auto pointers = c_strings(names);
        return checked(memdl_options_deny_imports(get(), pointers.data(), pointers.size()));
    }
    /// Libraries may bind to symbols of the host for which this returns true. An exception refuses.
    options &filter_imports(import_filter_function filter) & {
        auto owned = std::make_unique<import_filter_function>(std::move(filter));
        return checked(memdl_options_filter_imports(
            get(), &filter_with, owned.release(), &free_function<import_filter_function>));
    }
    /// Makes libraries immutable; see memdl_options_set_seal.
    options &seal(bool seal) & { return checked(memdl_options_set_seal(get(), seal)); }
    inline options &depends_on(const library &library) &;
    options &provide(const std::string &name, const void *bytes, std::size_t size) & {
        return checked(memdl_options_provide(get(), name.c_str(), bytes, size));
    }
    /// From any contiguous container of bytes.
    template <class Bytes> options &provide(const std::string &name, const Bytes &bytes) & {
        static_assert(sizeof(*bytes.data()) == 1, "bytes");
        return provide(name, bytes.data(), bytes.size());
    }
    /// Called for every library that something needs. An exception says that a library exists, and why it cannot be
    /// supplied: the load fails with what(). See memdl_options_set_provider.
    options &provider(provider_function provider) & {
        auto owned = std::make_unique<provider_function>(std::move(provider));
        return checked(memdl_options_set_provider(
            get(), &provide_with, owned.release(), &free_function<provider_function>));
    }
    /// Loads into a namespace that other loads use, too.
    options &name_space(const class name_space &space) & {
        return checked(memdl_options_set_namespace(get(), space.get()));
    }
    options &global(bool global) & { return checked(memdl_options_set_global(get(), global)); }
    options &system_libraries(bool allowed) & {
        return checked(memdl_options_set_system_libraries(get(), allowed));
    }
    options &scope(memdl_scope scope) & { return checked(memdl_options_set_scope(get(), scope)); }
    options &binding(memdl_binding binding) & {
        return checked(memdl_options_set_binding(get(), binding));
    }
    options &debug(memdl_debug debug) & { return checked(memdl_options_set_debug(get(), debug)); }
    options &debug_info(const void *bytes, std::size_t size) & {
        return checked(memdl_options_set_debug_info(get(), bytes, size));
    }
    /// From any contiguous container of bytes.
    template <class Bytes> options &debug_info(const Bytes &bytes) & {
        static_assert(sizeof(*bytes.data()) == 1, "bytes");
        return debug_info(bytes.data(), bytes.size());
    }
    options &profile(memdl_profile profile) & {
        return checked(memdl_options_set_profile(get(), profile));
    }
    options &limit(memdl_limit limit, std::uint64_t value) & {
        return checked(memdl_options_set_limit(get(), limit, value));
    }

    // The same for rvalues, so that the result of a chain can be moved:
    // auto kept = options().name("x").global(true);
    options &&name(const std::string &name) && { return std::move(this->name(name)); }
    options &&define(const std::string &name, const void *address) && {
        return std::move(define(name, address));
    }
    template <class R, class... A>
    options &&define(const std::string &name, R (*function)(A...)) && {
        return std::move(define(name, function));
    }
    options &&resolver(resolver_function resolver) && {
        return std::move(this->resolver(std::move(resolver)));
    }
    options &&verify(verifier_function verifier) && {
        return std::move(verify(std::move(verifier)));
    }
    options &&allow_imports(const std::vector<std::string> &names) && {
        return std::move(allow_imports(names));
    }
    options &&deny_imports(const std::vector<std::string> &names) && {
        return std::move(deny_imports(names));
    }
    options &&filter_imports(import_filter_function filter) && {
        return std::move(filter_imports(std::move(filter)));
    }
    options &&seal(bool seal) && { return std::move(this->seal(seal)); }
    inline options &&depends_on(const library &library) &&;
    options &&provide(const std::string &name, const void *bytes, std::size_t size) && {
        return std::move(provide(name, bytes, size));
    }
    template <class Bytes> options &&provide(const std::string &name, const Bytes &bytes) && {
        return std::move(provide(name, bytes));
    }
    options &&provider(provider_function provider) && {
        return std::move(this->provider(std::move(provider)));
    }
    options &&name_space(const class name_space &space) && {
        return std::move(this->name_space(space));
    }
    options &&global(bool global) && { return std::move(this->global(global)); }
    options &&system_libraries(bool allowed) && { return std::move(system_libraries(allowed)); }
    options &&scope(memdl_scope scope) && { return std::move(this->scope(scope)); }
    options &&binding(memdl_binding binding) && { return std::move(this->binding(binding)); }
    options &&debug(memdl_debug debug) && { return std::move(this->debug(debug)); }
    options &&debug_info(const void *bytes, std::size_t size) && {
        return std::move(debug_info(bytes, size));
    }
    template <class Bytes> options &&debug_info(const Bytes &bytes) && {
        return std::move(debug_info(bytes));
    }
    options &&profile(memdl_profile profile) && { return std::move(this->profile(profile)); }
    options &&limit(memdl_limit limit, std::uint64_t value) && {
        return std::move(this->limit(limit, value));
    }

    memdl_options *get() const noexcept { return handle_.get(); }

  private:
    static const void *ask(const memdl_request *request, void *user) noexcept {
        return (*static_cast<resolver_function *>(user))(*request);
    }

    static int verify_with(const memdl_image *image, const char **reason, void *user) noexcept {
        thread_local std::string text;
        try {
            (*static_cast<verifier_function *>(user))(*image);
            return 0;
        } catch (const std::exception &error) {
            text = error.what();
            *reason = text.c_str();
        } catch (...) {
        }
        return 1;
    }

    static int provide_with(const memdl_library_request *request, memdl_provided *answer,
                            void *user) noexcept {
        thread_local std::string text;
        try {
            return (*static_cast<provider_function *>(user))(*request).fill(*answer, text);
        } catch (const std::exception &error) {
            text = error.what();
        } catch (...) {
            text = "the provider threw something that is no std::exception";
        }
        answer->error = text.c_str();
        return 1;
    }

    static int filter_with(const memdl_request *request, void *user) noexcept {
        try {
            return (*static_cast<import_filter_function *>(user))(*request);
        } catch (...) {
            return 0;
        }
    }

    template <class Function> static void free_function(void *user) noexcept {
        delete static_cast<Function *>(user);
    }

    static std::vector<const char *> c_strings(const std::vector<std::string> &names) {
        std::vector<const char *> pointers;
        for (const std::string &name : names) pointers.push_back(name.c_str());
        return pointers;
    }

    options &checked(int status) {
        detail::check(status);
        return *this;
    }

    // The options refer to it, so it must be destroyed after them: it is declared first.
    std::unique_ptr<resolver_function> resolver_;
    detail::handle<memdl_options> handle_;
};

/// What became of a library that was closed. True if it is gone, or back in its pool.
class closed {
  public:
    /// From what memdl_close has just returned in this thread. Throws if it failed.
    explicit closed(int status) {
        if (status == 1) {
            if (const memdl_kept *kept = memdl_last_kept()) {
                kept_ = *kept;
                kept_.text = nullptr;
                why_ = kept->text;
            }
            return;
        }
        detail::check(status);
        is_gone_ = true;
    }

    explicit operator bool() const noexcept { return is_gone_; }
    /// What keeps it loaded, as a text. Empty if it is gone.
    const std::string &why() const noexcept { return why_; }
    /// The number of threads that have destructors of its thread-local objects to run: see
    /// library::leave_thread.
    std::size_t threads() const noexcept { return kept_.threads; }
    /// Whether the calling thread is one of them.
    bool is_this_thread() const noexcept { return kept_.this_thread != 0; }
    /// Whether an image has opened it by dlopen, and not closed it.
    bool is_open() const noexcept { return kept_.is_open != 0; }
    /// Whether it is never unloaded.
    bool is_never_unloaded() const noexcept { return kept_.never_unloaded != 0; }
    /// The number of libraries that are bound to it, or that it opened.
    std::size_t libraries() const noexcept { return kept_.libraries; }
    /// The number of options, templates and lookups that hold it.
    std::size_t others() const noexcept { return kept_.others; }

  private:
    bool is_gone_ = false;
    memdl_kept kept_ = {};
    std::string why_;
};

/// A library that runs from memory.
class library {
  public:
    library() = default;
    /// Takes ownership of a handle of the C API.
    explicit library(memdl_library *handle) noexcept : handle_(handle) {}

    static library open(const void *bytes, std::size_t size) {
        return library(detail::check(memdl_open(bytes, size, nullptr)));
    }
    static library open(const void *bytes, std::size_t size, const options &options) {
        return library(detail::check(memdl_open(bytes, size, options.get())));
    }
    /// From any contiguous container of bytes.
    template <class Bytes> static library open(const Bytes &bytes) {
        static_assert(sizeof(*bytes.data()) == 1, "bytes");
        return open(bytes.data(), bytes.size());
    }
    template <class Bytes> static library open(const Bytes &bytes, const options &options) {
        static_assert(sizeof(*bytes.data()) == 1, "bytes");
        return open(bytes.data(), bytes.size(), options);
    }
    /// Takes the buffer, even if it fails.
    static library open(buffer &&buffer) {
        return library(detail::check(memdl_open_buffer(buffer.release(), nullptr)));
    }
    static library open(buffer &&buffer, const options &options) {
        return library(detail::check(memdl_open_buffer(buffer.release(), options.get())));
    }

    /// The address of a symbol: get<int(int)>("f") is an int (*)(int), get<int>("v") an int *.
    template <class T> std::add_pointer_t<T> get(const std::string &name) const {
        return typed<T>(detail::check(memdl_sym(get(), name.c_str())));
    }
    /// As get, for a symbol of this version.
    template <class T>
    std::add_pointer_t<T> get(const std::string &name, const std::string &version) const {
        return typed<T>(detail::check(memdl_symv(get(), name.c_str(), version.c_str())));
    }
    /// As get, but returns null if there is no such symbol.
    template <class T> std::add_pointer_t<T> find(const std::string &name) const {
        void *found = memdl_sym(get(), name.c_str());
        if (!found) memdl_error();
        return typed<T>(found);
    }

    /// Makes the exports visible to libraries that are loaded later.
    void make_global() { detail::check(memdl_make_global(get())); }
    void set_debug(memdl_debug debug) { detail::check(memdl_set_debug(get(), debug)); }
    /// How much debuggers see of it now.
    memdl_debug debug() const {
        int debug = memdl_get_debug(get());
        if (debug < 0) throw error::last();
        return static_cast<memdl_debug>(debug);
    }
    void set_debug_info(const void *bytes, std::size_t size) {
        detail::check(memdl_set_debug_info(get(), bytes, size));
    }
    std::string name() const { return detail::check(memdl_name(get())); }
    std::optional<std::string> soname() const {
        const char *soname = memdl_soname(get());
        if (soname) return soname;
        return std::nullopt;
    }
    /// Whether it was made immutable (options::seal).
    bool is_sealed() const { return memdl_is_sealed(get()) == 1; }
    std::uintptr_t load_bias() const { return memdl_load_bias(get()); }
    /// The address of the first page, and the address after the last one.
    std::pair<std::uintptr_t, std::uintptr_t> address_range() const {
        std::pair<std::uintptr_t, std::uintptr_t> range;
        detail::check(memdl_address_range(get(), &range.first, &range.second));
        return range;
    }
    /// Calls `visit` with every exported memdl::symbol. Its exceptions pass.
    template <class Visit> void symbols(Visit visit) const {
        detail::check(memdl_symbols(
            get(),
            [](const memdl_symbol *found, void *user) {
                (*static_cast<Visit *>(user))(symbol(*found));
                return 0;
            },
            &visit));
    }
    /// All exported symbols, in the order of its symbol table.
    std::vector<symbol> symbols() const {
        std::vector<symbol> all;
        symbols([&all](symbol found) { all.push_back(std::move(found)); });
        return all;
    }
    /// All function symbols, imported ones included, in the order of its symbol table; see memdl_functions.
    std::vector<function_symbol> functions() const {
        std::vector<function_symbol> all;
        detail::check(memdl_functions(
            get(),
            [](const memdl_function_symbol *found, void *user) {
                static_cast<std::vector<function_symbol> *>(user)->emplace_back(*found);
                return 0;
            },
            &all));
        return all;
    }
    /// The exported symbol that an address lies in, if there is one.
    std::optional<symbol> symbol_at(const void *address) const {
        if (const memdl_symbol *found = memdl_symbol_at(get(), address)) return symbol(*found);
        memdl_error();
        return std::nullopt;
    }
    /// The exported symbol of this name, if the library itself has it.
    std::optional<symbol> symbol_named(const std::string &name) const {
        if (const memdl_symbol *found = memdl_symbol_named(get(), name.c_str())) return symbol(*found);
        memdl_error();
        return std::nullopt;
    }

    /// Closes the library now, and returns what became of it. Does nothing for an empty handle.
    closed close() {
        return handle_ ? closed(memdl_close(handle_.release())) : closed(0);
    }

    /// Leaves it in the calling thread (leave_thread), then closes it.
    closed close_with_thread_locals() {
        return handle_ ? closed(memdl_close_with_thread_locals(handle_.release())) : closed(0);
    }

    /// Runs the destructors of the calling thread's thread-local objects of it, and frees its thread-local
    /// variables, as when the thread ends. Do not call it from the library's own code. Nothing may use these
    /// objects any more: see memdl.h.
    void leave_thread() const { detail::check(memdl_leave_thread(get())); }

    explicit operator bool() const noexcept { return handle_ != nullptr; }
    memdl_library *get() const noexcept { return handle_.get(); }
    /// Releases ownership of the handle.
    memdl_library *release() noexcept { return handle_.release(); }

  private:
    template <class T> static std::add_pointer_t<T> typed(void *address) {
        return reinterpret_cast<std::add_pointer_t<T>>(address);
    }

    detail::handle<memdl_library> handle_;
};

inline provided::provided(const library &library) : library_(library.get()) {}

inline options &options::depends_on(const library &library) & {
    return checked(memdl_options_depends_on(get(), library.get()));
}

inline options &&options::depends_on(const library &library) && {
    return std::move(depends_on(library));
}

/// A library that is parsed and bound, for any number of instances.
class prepared {
  public:
    prepared(const void *bytes, std::size_t size)
        : handle_(detail::check(memdl_prepare(bytes, size, nullptr))) {}
    prepared(const void *bytes, std::size_t size, const options &options)
        : handle_(detail::check(memdl_prepare(bytes, size, options.get()))) {}
    template <class Bytes>
    explicit prepared(const Bytes &bytes) : prepared(bytes.data(), bytes.size()) {
        static_assert(sizeof(*bytes.data()) == 1, "bytes");
    }
    template <class Bytes>
    prepared(const Bytes &bytes, const options &options)
        : prepared(bytes.data(), bytes.size(), options) {
        static_assert(sizeof(*bytes.data()) == 1, "bytes");
    }

    /// Takes the buffer, even if it fails.
    explicit prepared(buffer &&buffer)
        : handle_(detail::check(memdl_prepare_buffer(buffer.release(), nullptr))) {}
    prepared(buffer &&buffer, const options &options)
        : handle_(detail::check(memdl_prepare_buffer(buffer.release(), options.get()))) {}

    /// Makes one more instance, and runs its constructors.
    library instantiate() const {
        return library(detail::check(memdl_instantiate(handle_.get())));
    }

    /// Its number: the template_id of its instances in images().
    std::uint64_t id() const { return memdl_template_id(get()); }

    memdl_template *get() const noexcept { return handle_.get(); }

  private:
    detail::handle<memdl_template> handle_;
};

/// What is known of a library before it is loaded: see memdl_inspect. The strings and the elements of its lists live
/// as long as it.
class report {
  public:
    /// A list of the report, for `for` loops. `At` is a function of memdl.h.
    template <class T, T (*At)(const memdl_report *, std::size_t)> class list {
      public:
        class iterator {
          public:
            iterator(const memdl_report *report, T item) : report_(report), item_(item) {}
            T operator*() const { return item_; }
            iterator &operator++() {
                item_ = At(report_, ++index_);
                return *this;
            }
            bool operator!=(const iterator &other) const { return item_ != other.item_; }

          private:
            const memdl_report *report_;
            std::size_t index_ = 0;
            T item_;
        };
        explicit list(const memdl_report *report) : report_(report) {}
        iterator begin() const { return {report_, At(report_, 0)}; }
        iterator end() const { return {report_, nullptr}; }
        bool empty() const { return At(report_, 0) == nullptr; }
        /// The element of this index; null behind the last.
        T operator[](std::size_t index) const { return At(report_, index); }

      private:
        const memdl_report *report_;
    };

    report(const void *bytes, std::size_t size)
        : handle_(detail::check(memdl_inspect(bytes, size, nullptr))) {}
    report(const void *bytes, std::size_t size, const options &options)
        : handle_(detail::check(memdl_inspect(bytes, size, options.get()))) {}

    bool is_refused() const { return memdl_report_is_refused(get()) == 1; }
    bool is_complete() const { return memdl_report_is_complete(get()) == 1; }
    bool is_for_this_machine() const { return memdl_report_is_for_this_machine(get()) == 1; }
    bool unloads() const { return memdl_report_unloads(get()) == 1; }
    bool has_unique_symbols() const { return memdl_report_has_unique_symbols(get()) == 1; }
    std::string name() const { return memdl_report_name(get()); }
    std::string text() const { return memdl_report_text(get()); }
    std::optional<std::string> machine() const { return optional(memdl_report_machine(get())); }
    std::optional<std::string> soname() const { return optional(memdl_report_soname(get())); }
    /// Empty if there is none.
    std::vector<unsigned char> build_id() const {
        std::size_t len = 0;
        const unsigned char *id = memdl_report_build_id(get(), &len);
        return id ? std::vector<unsigned char>(id, id + len) : std::vector<unsigned char>();
    }

    // Lists of a report that is gone at the end of the statement do not compile.
    using texts_of_refusals = list<const char *, memdl_report_refusal>;
    texts_of_refusals refusals() const & { return texts_of_refusals(get()); }
    texts_of_refusals refusals() const && = delete;
    using texts_of_refusals_there = list<const char *, memdl_report_refusal_on_its_machine>;
    texts_of_refusals_there refusals_on_its_machine() const & { return texts_of_refusals_there(get()); }
    texts_of_refusals_there refusals_on_its_machine() const && = delete;
    using names_of_levels = list<const char *, memdl_report_isa_level>;
    names_of_levels isa_levels() const & { return names_of_levels(get()); }
    names_of_levels isa_levels() const && = delete;
    using kinds_of_debug_information = list<const char *, memdl_report_debug_information>;
    kinds_of_debug_information debug_information() const & { return kinds_of_debug_information(get()); }
    kinds_of_debug_information debug_information() const && = delete;
    using names_of_versions = list<const char *, memdl_report_defined_version>;
    names_of_versions defined_versions() const & { return names_of_versions(get()); }
    names_of_versions defined_versions() const && = delete;
    using needed_libraries = list<const memdl_needed *, memdl_report_needed>;
    needed_libraries needed() const & { return needed_libraries(get()); }
    needed_libraries needed() const && = delete;
    using versions_needed = list<const memdl_needed_version *, memdl_report_needed_version>;
    versions_needed needed_versions() const & { return versions_needed(get()); }
    versions_needed needed_versions() const && = delete;
    using types_of_relocations = list<const memdl_relocation_type *, memdl_report_relocation_type>;
    types_of_relocations relocation_types() const & { return types_of_relocations(get()); }
    types_of_relocations relocation_types() const && = delete;
    using list_of_imports = list<const memdl_import *, memdl_report_import>;
    list_of_imports imports() const & { return list_of_imports(get()); }
    list_of_imports imports() const && = delete;
    using list_of_exports = list<const memdl_export *, memdl_report_export>;
    list_of_exports exports() const & { return list_of_exports(get()); }
    list_of_exports exports() const && = delete;
    using list_of_functions = list<const memdl_function_symbol *, memdl_report_function>;
    list_of_functions functions() const & { return list_of_functions(get()); }
    list_of_functions functions() const && = delete;
    using list_of_notes = list<const memdl_note *, memdl_report_note>;
    list_of_notes notes() const & { return list_of_notes(get()); }
    list_of_notes notes() const && = delete;

    const memdl_report *get() const noexcept { return handle_.get(); }

  private:
    static std::optional<std::string> optional(const char *text) {
        return text ? std::optional<std::string>(text) : std::nullopt;
    }

    detail::handle<memdl_report> handle_;
};

/// Inspects bytes: anything with data() and size().
template <class Bytes> report inspect(const Bytes &bytes) {
    static_assert(sizeof(*bytes.data()) == 1, "bytes");
    return report(bytes.data(), bytes.size());
}
template <class Bytes> report inspect(const Bytes &bytes, const options &options) {
    static_assert(sizeof(*bytes.data()) == 1, "bytes");
    return report(bytes.data(), bytes.size(), options);
}

/// Instances that are reset and used again.
class pool {
  public:
    pool(const prepared &prepared, std::size_t capacity,
         memdl_reset reset = MEMDL_RESET_AFTER_CONSTRUCTORS)
        : handle_(detail::check(memdl_pool_new(prepared.get(), capacity, reset))) {}

    /// An idle instance, or else a new one. It returns to the pool when it is closed or destroyed.
    library acquire() const { return library(detail::check(memdl_pool_acquire(handle_.get()))); }

    /// The number of idle instances.
    std::size_t parked() const { return memdl_pool_parked(handle_.get()); }

    memdl_pool *get() const noexcept { return handle_.get(); }

  private:
    detail::handle<memdl_pool> handle_;
};

} // namespace memdl

#endif
