// memdl.hpp, from C++17. Run by tests/capi/capi.rs with the paths of the test libraries.
#include "memdl.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #what);                \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (0)

// `body` throws a memdl::error with `part` in its text.
template <class Body> static void check_error(const char *part, Body body) {
    try {
        body();
    } catch (const memdl::error &error) {
        if (std::strstr(error.what(), part)) return;
        std::fprintf(stderr, "expected \"%s\", got \"%s\"\n", part, error.what());
        std::exit(1);
    }
    std::fprintf(stderr, "expected an error with \"%s\"\n", part);
    std::exit(1);
}

using bytes = std::vector<char>;

static bytes read_file(const char *path) {
    std::ifstream stream(path, std::ios::binary);
    CHECK(stream);
    return bytes(std::istreambuf_iterator<char>(stream), {});
}

extern "C" {
int host_or_own() { return 1; }
int capi_throw = 0;
}

static int started, ended;
static int defined(int x) { return x * 100; }
static int resolved() { return 20; }

static memdl::options plugin_options(int &asked) {
    memdl::options options;
    options.name("the plugin")
        .define("capi_defined", defined)
        .define("capi_started", &started)
        .define("capi_ended", &ended)
        .resolver([&asked](const memdl_request &request) -> const void * {
            // Others are asked for as well: compilers' own weak symbols.
            if (std::string(request.name) == "capi_optional") asked++;
            if (std::string(request.name) != "capi_resolved") return nullptr;
            asked++;
            return reinterpret_cast<const void *>(resolved);
        });
    return options;
}

static void test_library(const bytes &plugin) {
    int asked = 0;
    memdl::options options = plugin_options(asked);
    {
        memdl::library library = memdl::library::open(plugin, options);
        CHECK(library && asked == 2 && started == 1 && ended == 0);
        auto function = library.get<int(int)>("plugin_function");
        static_assert(std::is_same_v<decltype(function), int (*)(int)>);
        CHECK(function(3) == 325);
        static_assert(std::is_same_v<decltype(library.get<int>("plugin_data")), int *>);
        CHECK(*library.get<int>("plugin_data") == 5);
        CHECK(library.get<int()>("versioned", "PLUGIN_1")() == 1);
        CHECK(library.get<int()>("versioned")() == 2);
        CHECK(library.find<int>("nothing") == nullptr && memdl_error() == nullptr);
        CHECK(library.find<int>("plugin_data") == library.get<int>("plugin_data"));
        check_error("no symbol `nothing`", [&] { library.get<int>("nothing"); });

        CHECK(library.name() == "the plugin" && library.soname() == "libplugin.so");
        auto [begin, end] = library.address_range();
        CHECK(begin == library.load_bias() && begin < end);

        std::set<std::string> names;
        library.symbols([&](const memdl::symbol &symbol) { names.insert(symbol.name); });
        CHECK(names.count("plugin_data") && names.count("versioned"));
        auto found = library.symbol_at(reinterpret_cast<void *>(function));
        CHECK(found && found->name == "plugin_function" && found->version == "PLUGIN_1");
        CHECK(!library.symbol_at(&begin) && memdl_error() == nullptr);
        CHECK(library.symbol_named("plugin_function")->address == found->address);
        CHECK(!library.symbol_named("getpid") && memdl_error() == nullptr);
        auto frames = memdl::symbolize(reinterpret_cast<char *>(function) + 1);
        CHECK(frames.size() == 1 && frames[0].function == "plugin_function");
        CHECK(!frames[0].is_inlined && frames[0].image == "the plugin" && !frames[0].file);
        CHECK(memdl::symbolize(&begin).empty());
        // An exception of a callback comes back out.
        try {
            library.symbols([](const memdl::symbol &) { throw std::runtime_error("enough"); });
            CHECK(false);
        } catch (const std::runtime_error &error) {
            CHECK(std::string(error.what()) == "enough");
        }

        memdl::library moved = std::move(library);
        CHECK(moved && !library);
        CHECK(ended == 0);
    }
    CHECK(ended == 1);
    memdl::library library = memdl::library::open(plugin, options);
    library.close();
    CHECK(ended == 2 && !library);
    library.close();
    CHECK(ended == 2);

    memdl::prepared prepared(plugin, options);
    memdl::library a = prepared.instantiate(), b = prepared.instantiate();
    CHECK(a.load_bias() != b.load_bias() && *b.get<int>("plugin_data") == 5);

    memdl::buffer received(plugin.size()), malformed(10);
    std::copy(plugin.begin(), plugin.end(), received.begin());
    memdl::prepared of_buffer(std::move(received), options);
    CHECK(received.get() == nullptr && *of_buffer.instantiate().get<int>("plugin_data") == 5);
    check_error("malformed", [&] { memdl::prepared(std::move(malformed)); });

    memdl::pool pool(prepared, 1);
    for (int round = 0; round < 3; round++) {
        memdl::library pooled = pool.acquire();
        CHECK(pool.parked() == 0 && *pooled.get<int>("plugin_data") == 5);
        *pooled.get<int>("plugin_data") = 1;
    }
    CHECK(pool.parked() == 1);
}

static void test_loading(const bytes &plain, const bytes &dependent) {
    memdl::buffer buffer(plain.size());
    CHECK(buffer.size() == plain.size());
    std::copy(plain.begin(), plain.end(), buffer.begin());
    memdl::library needed =
        memdl::library::open(std::move(buffer), memdl::options().name("libplain.so"));
    CHECK(buffer.get() == nullptr && buffer.size() == 0 && buffer.data() == nullptr);
    CHECK(needed.get<int()>("plain_value")() == 41 && !needed.soname());

    memdl::library library =
        memdl::library::open(dependent, memdl::options().depends_on(needed));
    memdl::closed kept = needed.close();
    CHECK(!kept && kept.libraries() == 1 && kept.threads() == 0 && !kept.is_this_thread());
    CHECK(!kept.is_open() && !kept.is_never_unloaded() && kept.others() == 0);
    CHECK(kept.why().find("is bound to it") != std::string::npos);
    CHECK(library.get<int()>("dependent_value")() == 42);

    memdl::options options;
    options.provide("libplain.so", plain)
        .scope(MEMDL_SCOPE_SELF_FIRST)
        .binding(MEMDL_BINDING_NOW)
        .debug(MEMDL_DEBUG_SYMBOLS)
        .debug_info(dependent)
        .profile(MEMDL_PROFILE_OFF)
        .global(false)
        .system_libraries(false)
        .limit(MEMDL_LIMIT_IMAGES, 2);
    library = memdl::library::open(dependent, options);
    CHECK(library.get<int()>("dependent_host_or_own")() == 2);
    library.set_debug_info(dependent.data(), dependent.size());
    library.set_debug(MEMDL_DEBUG_FULL);
    memdl::wipe_kept_memory(false);
    memdl::release_memory();

    int asked = 0;
    memdl::name_space space;
    auto provides = memdl::options().name_space(space).provider(
        [&](const memdl_library_request &request) -> memdl::provided {
            if (std::string(request.name) != "libplain.so") return {};
            asked++;
            return memdl::provided::bytes(plain).named("/store/libplain.so");
        });
    memdl::library one = memdl::library::open(dependent, provides);
    memdl::library two = memdl::library::open(dependent, provides);
    CHECK(asked == 1 && one.get<int()>("dependent_value")() == 42);
    CHECK(one.get<int()>("plain_value") == two.get<int()>("plain_value"));
    bool named = false;
    for (const memdl::image_info &image : memdl::images()) named |= image.name == "/store/libplain.so";
    CHECK(named);

    const memdl::library loaded = memdl::library::open(plain);
    auto lends = memdl::options().provider([&](const memdl_library_request &request) -> memdl::provided {
        if (std::string(request.name) == "libplain.so") return loaded;
        return {};
    });
    CHECK(memdl::library::open(dependent, lends).get<int()>("plain_value") == loaded.get<int()>("plain_value"));
    const void *place = nullptr;
    auto receives = memdl::options().provider([&](const memdl_library_request &request) -> memdl::provided {
        if (std::string(request.name) != "libplain.so") return {};
        memdl::buffer received(plain.size());
        std::copy(plain.begin(), plain.end(), received.begin());
        place = received.data();
        return received;
    });
    memdl::library there = memdl::library::open(dependent, receives);
    CHECK(there.get<int()>("dependent_value")() == 42);
    bool in_place = false;
    for (const memdl::image_info &image : memdl::images()) {
        const auto address = reinterpret_cast<std::uintptr_t>(place);
        in_place |= image.name == "libplain.so" && image.start <= address && address < image.end;
    }
    CHECK(in_place);

    auto fails = memdl::options().provider([](const memdl_library_request &) -> memdl::provided {
        throw std::runtime_error("the store is offline");
    });
    check_error("the store is offline", [&] { memdl::library::open(dependent, fails); });
    check_error("libplain.so", [&] { memdl::library::open(dependent); });
    check_error("malformed", [&] { memdl::library::open("not ELF", 7); });
    check_error("malformed", [&] { memdl::library::open(memdl::buffer(10)); });
    check_error("null", [&] { memdl::library().name(); });
    check_error("memdl_limit 99", [&] { options.limit(static_cast<memdl_limit>(99), 1); });
    one.make_global();
}

// What a constructor throws passes through memdl, which takes the library away on the way.
static void test_exception(const bytes &throws) {
    memdl::options options;
    options.system_libraries(true).define("capi_throw", &capi_throw).name("libthrows.so");
    memdl::prepared prepared(throws, options);
    for (int round = 0; round < 10; round++) {
        capi_throw = 1;
        for (int way = 0; way < 3; way++) {
            try {
                if (way == 0) {
                    memdl::library::open(throws, options);
                } else if (way == 1) {
                    prepared.instantiate();
                } else {
                    memdl::buffer buffer(throws.size());
                    std::copy(throws.begin(), throws.end(), buffer.begin());
                    memdl::library::open(std::move(buffer), options);
                }
                CHECK(false);
            } catch (const std::runtime_error &error) {
                CHECK(std::string(error.what()) == "thrown by a constructor");
            }
        }
        std::ifstream maps("/proc/self/maps");
        std::string text(std::istreambuf_iterator<char>(maps), {});
        CHECK(text.find("libthrows.so") == std::string::npos);
        capi_throw = 0;
        CHECK(memdl::library::open(throws, options).get<int()>("not_thrown")() == 3);
    }
}

static void test_policy(const bytes &plugin, const bytes &plain, const bytes &dependent) {
    // A chain on options that are about to go can be kept.
    int seen = 0;
    auto options = memdl::options().provide("libplain.so", plain).verify(
        [&seen, big = std::string(100, 'x')](const memdl_image &image) {
            seen++;
            if (std::string(image.name) == "refused") throw std::runtime_error("not signed");
        });
    memdl::library library = memdl::library::open(dependent, options);
    CHECK(seen == 2 && library.get<int()>("dependent_value"));
    check_error("refused: refused by the verifier: not signed", [&] {
        memdl::library::open(dependent, options.name("refused"));
    });
    // What the library may still call stays when the options go.
    { auto gone = std::move(options); }
    library.close();

    using names = std::vector<std::string>;
    const char *refused = "does not allow these imports: __tls_get_addr";
    check_error(refused, [&] {
        memdl::library::open(plugin, memdl::options().deny_imports(names{"__tls_get_addr"}));
    });
    check_error(refused, [&] {
        memdl::library::open(plugin, memdl::options().allow_imports(names{"malloc"}));
    });
    check_error(refused, [&] {
        auto filter = [](const memdl_request &request) {
            if (std::string(request.name) == "__tls_get_addr") throw 5;
            return true;
        };
        memdl::library::open(plugin, memdl::options().filter_imports(filter));
    });
    try {
        memdl::library sealed = memdl::library::open(plain, memdl::options().seal(true));
        CHECK(sealed.is_sealed());
        check_error("stays for the life of the process", [&] { sealed.close(); });
    } catch (const memdl::error &error) {
        CHECK(std::strstr(error.what(), "mseal needs Linux 6.10"));
    }
    CHECK(!memdl::library::open(plain, memdl::options().seal(false)).is_sealed());
}

static int told;

static void test_leaving(const bytes &leaves) {
    auto options = memdl::options().system_libraries(true);
    auto open = [&] {
        memdl::library library = memdl::library::open(leaves, options);
        library.get<void(void (*)(int))>("report_to")([](int letter) { told += letter != '!'; });
        return library;
    };
    memdl::library library = open();
    auto use = library.get<int()>("use");
    CHECK(use() == 6 && use() == 7);
    library.leave_thread();
    CHECK(told == 3 && use() == 6);
    memdl::closed gone = library.close_with_thread_locals();
    CHECK(gone && gone.why().empty() && told == 6 && !library);
    CHECK(library.close() && library.close_with_thread_locals());
    library = open();
    CHECK(library.get<int()>("use")() == 6);
    memdl::closed kept = library.close();
    CHECK(!kept && kept.is_this_thread() && kept.threads() == 1 && !kept.why().empty());
}

static void test_errors(const bytes &plain, const bytes &dependent) {
    CHECK(memdl::version() == memdl_version_text());
    try {
        memdl::library::open(dependent, memdl::options().name("asks").system_libraries(false));
        CHECK(false);
    } catch (const memdl::error &error) {
        CHECK(error.code() == MEMDL_ERROR_MISSING && error.missing().size() == 1);
        const memdl::missing &missing = error.missing()[0];
        CHECK(missing.kind == MEMDL_MISSING_LIBRARY && missing.name == "libplain.so");
        CHECK(missing.needed_by == "asks" && !missing.version);
    }
    memdl::buffer buffer(10);
    buffer.resize(plain.size() + 10);
    std::copy(plain.begin(), plain.end(), buffer.begin());
    buffer.resize(plain.size());
    memdl::library library = memdl::library::open(std::move(buffer));
    bool found = false;
    for (const memdl::symbol &symbol : library.symbols()) found |= symbol.name == "plain_value";
    CHECK(found);
    found = false;
    for (const memdl::function_symbol &function : library.functions())
        found |= function.is_defined && function.name == "plain_value" && function.index > 0;
    CHECK(found);
    try {
        library.get<int()>("nothing");
        CHECK(false);
    } catch (const memdl::error &error) {
        CHECK(error.code() == MEMDL_ERROR_SYMBOL_NOT_FOUND && error.missing().empty());
    }
}

static void test_operators(const bytes &plain) {
    CHECK(memdl::images().empty());
    std::vector<std::string> heard;
    memdl::set_log(MEMDL_LOG_DEBUG, [&heard](memdl_log_level level, const char *text) {
        CHECK(level == MEMDL_LOG_DEBUG);
        heard.emplace_back(text);
        throw std::runtime_error("is dropped");
    });
    memdl::prepared prepared(plain, memdl::options().name("listed").debug(MEMDL_DEBUG_SYMBOLS));
    {
        memdl::library library = prepared.instantiate();
        std::vector<memdl::image_info> images = memdl::images();
        CHECK(images.size() == 1 && images[0].name == "listed" && images[0].holders == 1);
        CHECK(images[0].template_id == prepared.id() && images[0].build_id.size() == 20);
        CHECK(std::make_pair(images[0].start, images[0].end) == library.address_range());
        CHECK(images[0].load_bias == library.load_bias());
        CHECK(images[0].debug == MEMDL_DEBUG_SYMBOLS && library.debug() == MEMDL_DEBUG_SYMBOLS);
        memdl_statistics statistics = memdl::statistics();
        CHECK(statistics.images == 1 && statistics.loads == statistics.unloads + 1);
    }
    CHECK(heard.size() == 3 && heard[0].find("listed: prepared as template ") == 0);
    CHECK(heard[1].find("listed: an instance of template ") == 0);
    CHECK(heard[2].find("listed: unloaded at 0x") == 0);
    memdl::set_log(MEMDL_LOG_OFF, nullptr);
    prepared.instantiate();
    CHECK(heard.size() == 3 && memdl::images().empty());
    check_error("the library is null", [] { memdl::library().debug(); });
    check_error("no memdl_log_level 9", [] {
        memdl::set_log(static_cast<memdl_log_level>(9), [](memdl_log_level, const char *) {});
    });
    // Exceptions of C callbacks pass.
    memdl::library library = prepared.instantiate();
    try {
        memdl_images([](const memdl_image_info *, void *) -> int { throw 5; }, nullptr);
        CHECK(false);
    } catch (int thrown) {
        CHECK(thrown == 5);
    }
}

static void test_report(const bytes &plugin, const bytes &plain) {
    memdl::report report = memdl::inspect(plain);
    CHECK(!report.is_refused() && report.is_complete() && report.is_for_this_machine());
    CHECK(report.machine() == "x86-64" && report.build_id().size() == 20 && report.unloads());
    CHECK(report.refusals().empty() && !report.functions().empty());
    CHECK(report.refusals_on_its_machine().empty() && report.relocation_types()[0]->count > 0);
    std::set<std::string> exports;
    for (const memdl_export *symbol : report.exports()) exports.insert(symbol->name);
    memdl::library library = memdl::library::open(plain);
    std::set<std::string> loaded;
    library.symbols([&](const memdl::symbol &symbol) { loaded.insert(symbol.name); });
    CHECK(exports == loaded);
    // What the options define counts.
    auto refusals = [&](const memdl::options &options) {
        std::string all;
        memdl::report report = memdl::inspect(plugin, options);
        for (const char *reason : report.refusals()) all += reason;
        return all;
    };
    CHECK(refusals(memdl::options()).find("capi_defined") != std::string::npos);
    int asked = 0;
    CHECK(refusals(plugin_options(asked)).empty() && asked > 0);
    memdl::report script = memdl::inspect(std::string("#!/bin/sh"));
    CHECK(script.is_refused() && !script.machine() && !script.soname());
    CHECK(std::strstr(script.refusals()[0], "a script") && !script.refusals()[1]);
    CHECK(script.text().find("a script") != std::string::npos);
}

int main(int argc, char **argv) {
    CHECK(argc == 6);
    bytes plugin = read_file(argv[1]), plain = read_file(argv[2]);
    bytes dependent = read_file(argv[3]), leaves = read_file(argv[4]);
    bytes throws = read_file(argv[5]);
    test_library(plugin);
    CHECK(started == 6 && ended == 6);
    test_loading(plain, dependent);
    test_exception(throws);
    test_errors(plain, dependent);
    test_operators(plain);
    test_report(plugin, plain);
    test_policy(plugin, plain, dependent);
    test_leaving(leaves);
    std::puts("all of memdl.hpp works");
}
