// What a debugger is shown of the standard library's containers, through the pretty printers that
// come with it. The marks are where tests set breakpoints.
#include <array>
#include <bitset>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

struct Item {
    int id;
    std::string label;
};

extern "C" int entry(int n) {
    std::string text = "text";
    std::vector<int> numbers{1, 2, n};
    std::vector<bool> flags{true, false, true};
    std::vector<Item> items{{1, "first"}, {2, "second"}};
    std::list<double> line{0.5, 1.5};
    std::deque<char> queue{'a', 'b'};
    std::array<short, 2> pair{7, 8};
    std::map<std::string, int> ages{{"ann", 30}, {"bob", 40}};
    std::multiset<int> bag{3, 3, 4};
    std::unordered_map<int, std::string> names{{9, "nine"}};
    std::unique_ptr<Item> owner = std::make_unique<Item>(Item{3, "owned"});
    std::shared_ptr<int> shared = std::make_shared<int>(12);
    std::weak_ptr<int> weak = shared;
    std::optional<int> some = 5, none;
    std::variant<int, std::string> either = "either";
    std::tuple<int, char, std::string> three{1, 'c', "three"};
    std::bitset<8> bits(0x15);
    std::vector<int>::iterator second = numbers.begin() + 1;
    std::reference_wrapper<int> wrapped = numbers[0];
    return numbers[2] + (int)text.size() + *second + wrapped + // MARK entry
           (int)ages.size() + *some + !none + (int)flags.size() + (int)items.size() +
           (int)line.size() + queue[0] + pair[0] + (int)bag.size() + (int)names.size() + owner->id +
           *weak.lock() + (int)either.index() + std::get<0>(three) + (int)bits.count();
}
