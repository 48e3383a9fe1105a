// What the C++ runtime library does for others: exceptions of its own and of ours, streams,
// locales, threads, and objects that live until the thread or the program ends.
#include <chrono>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <fstream>
#include <future>
#include <iomanip>
#include <iostream>
#include <locale>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <typeinfo>
#include <vector>

namespace {

std::atomic<int> alive{0};

struct Counted {
    std::string text;
    explicit Counted(std::string text) : text(std::move(text)) { alive++; }
    Counted(const Counted &) = delete;
    ~Counted() { alive--; }
};

struct Mine : std::runtime_error {
    int number;
    explicit Mine(int number) : std::runtime_error("mine"), number(number) {}
};

thread_local Counted of_thread("thread");
std::once_flag once;
int once_count = 0;

int exceptions() {
    // Thrown by code of the library.
    try {
        std::vector<int> few(3);
        few.at(7) = 1;
        return 1;
    } catch (const std::out_of_range &error) {
        if (!std::strstr(error.what(), "7")) return 2;
    }
    try {
        (void)std::stoi("no number");
        return 3;
    } catch (const std::invalid_argument &) {
    }
    // Thrown by ours, caught by a base class of the library; the stack is unwound.
    int before = alive;
    try {
        Counted local("on the way");
        throw Mine(6);
    } catch (const std::exception &error) {
        auto *mine = dynamic_cast<const Mine *>(&error);
        if (!mine || mine->number != 6 || alive != before) return 4;
    }
    // Nested.
    try {
        try {
            throw std::system_error(std::make_error_code(std::errc::no_such_file_or_directory));
        } catch (...) {
            std::throw_with_nested(Mine(7));
        }
    } catch (const Mine &outer) {
        try {
            std::rethrow_if_nested(outer);
            return 5;
        } catch (const std::system_error &inner) {
            if (inner.code() != std::errc::no_such_file_or_directory) return 6;
        }
    }
    // bad_alloc, bad_cast, bad_typeid come from the runtime itself.
    try {
        std::istream &in = std::cin;
        (void)dynamic_cast<std::stringstream &>(in);
        return 7;
    } catch (const std::bad_cast &) {
    }
    if (std::uncaught_exceptions() != 0) return 8;
    return 0;
}

struct German : std::numpunct<char> {
    char do_thousands_sep() const override { return '.'; }
    char do_decimal_point() const override { return ','; }
    std::string do_grouping() const override { return "\3"; }
};

int streams() {
    std::ostringstream out;
    out.imbue(std::locale(std::locale::classic(), new German));
    out << std::fixed << std::setprecision(2) << 1234567.891 << ' ' << 1000000 << ' ' << std::hex
        << std::showbase << 255;
    if (out.str() != "1.234.567,89 1.000.000 0xff") return 11;
    std::istringstream in("17 3.25 word");
    int i;
    double d;
    std::string s;
    if (!(in >> i >> d >> s) || i != 17 || d != 3.25 || s != "word" || (in >> i)) return 12;
    std::cout << "from C++ in memory" << std::endl;
    if (!std::cout.good()) return 13;
    std::ifstream none("/nonexistent");
    if (none) return 14;
    none.exceptions(std::ios::goodbit);
    try {
        none.exceptions(std::ios::failbit);
        return 15;
    } catch (const std::ios_base::failure &) {
    }
    std::ifstream self("/proc/self/stat");
    std::string line;
    if (!std::getline(self, line) || line.empty()) return 16;
    return 0;
}

int locales() {
    const std::locale &classic = std::locale::classic();
    if (classic.name() != "C" || std::locale().name() != "C") return 21;
    if (std::toupper('q', classic) != 'Q' || !std::isdigit('7', classic)) return 22;
    std::locale utf8("C.UTF-8");
    using Codecvt = std::codecvt<wchar_t, char, std::mbstate_t>;
    const auto &convert = std::use_facet<Codecvt>(utf8);
    std::mbstate_t state{};
    const char text[] = "\xc3\xa9"; // é
    const char *from;
    wchar_t wide[4], *to;
    if (convert.in(state, text, text + 2, from, wide, wide + 4, to) != Codecvt::ok) return 23;
    if (to != wide + 1 || wide[0] != 0xe9) return 24;
    try {
        std::locale none("no_such_locale");
        return 25;
    } catch (const std::runtime_error &) {
    }
    std::regex words("([a-z]+)-(\\d+)");
    std::smatch match;
    std::string searched = "lot-4242";
    if (!std::regex_match(searched, match, words) || match[2] != "4242") return 26;
    std::tm date{};
    std::istringstream in("2024-02-29");
    if (!(in >> std::get_time(&date, "%Y-%m-%d")) || date.tm_mday != 29) return 27;
    return 0;
}

int threads() {
    int before = alive;
    std::vector<std::thread> several;
    std::atomic<int> sum{0};
    for (int i = 0; i < 8; i++)
        several.emplace_back([i, &sum] {
            std::call_once(once, [] { once_count++; });
            of_thread.text += std::to_string(i);
            try {
                throw Mine(i);
            } catch (const Mine &mine) {
                sum += mine.number;
            }
        });
    for (auto &thread : several) thread.join();
    if (sum != 28 || once_count != 1) return 31;
    // The threads' variables were destroyed.
    if (alive != before) return 32;
    // An exception from one thread to another.
    auto future = std::async(std::launch::async, []() -> int { throw Mine(99); });
    try {
        future.get();
        return 33;
    } catch (const Mine &mine) {
        if (mine.number != 99) return 34;
    }
    std::mutex mutex;
    std::condition_variable ready;
    bool done = false;
    std::thread other([&] {
        std::lock_guard<std::mutex> lock(mutex);
        done = true;
        ready.notify_one();
    });
    std::unique_lock<std::mutex> lock(mutex);
    if (!ready.wait_for(lock, std::chrono::seconds(20), [&] { return done; })) return 35;
    lock.unlock();
    other.join();
    return 0;
}

} // namespace

extern "C" int run() {
    once_count = 0;
    new (&once) std::once_flag;
    for (auto part : {exceptions, streams, locales, threads})
        if (int failed = part()) return failed;
    return 42;
}
