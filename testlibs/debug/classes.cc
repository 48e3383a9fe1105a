// What a debugger is shown of C++'s types: inheritance, virtual functions, overloads, templates,
// references, operators, lambdas, enumerations. The marks are where tests set breakpoints.
#include <cstdint>

namespace zoo {

enum class Size : std::uint8_t { Small, Large = 7 };

struct Animal {
    virtual ~Animal() {}
    virtual int legs() const { return 0; }
    int age = 2;
    static int count;
};
int Animal::count = 3;

struct Named {
    virtual ~Named() {}
    const char *name = "rex";
};

class Dog : public Animal, public virtual Named {
  public:
    explicit Dog(int weight) : weight(weight) {} // MARK constructor
    ~Dog() override { count--; }                 // MARK destructor
    int legs() const override { return 4; }      // MARK legs
    Size size() const { return weight > 20 ? Size::Large : Size::Small; }
    Dog operator+(const Dog &other) const { return Dog(weight + other.weight); } // MARK plus

  private:
    int weight;
};

int feed(int amount) {
    return amount; // MARK feed_int
}
int feed(const char *what) {
    return what[0]; // MARK feed_text
}
int feed(Dog &dog, int amount) {
    dog.age += amount; // MARK feed_dog
    return dog.age;
}

template <typename T, int N> struct Herd {
    T members[N];
    T sum() const {
        T total{};
        for (const T &member : members)
            total += member;
        return total; // MARK sum
    }
};

template <typename T> T doubled(T value) {
    return value + value; // MARK doubled
}

} // namespace zoo

namespace {
int hidden = 11;
}

extern "C" int entry(int n) {
    zoo::Dog dog(n * 5), other(1);
    zoo::Animal *animal = &dog;
    int &alias = dog.age;
    int &&temporary = n + 1;
    int zoo::Animal::*member = &zoo::Animal::age;
    int (zoo::Animal::*method)() const = &zoo::Animal::legs;
    zoo::Herd<int, 3> herd = {{1, 2, 3}};
    auto add = [&alias, n](int by) { return alias + n + by; }; // MARK lambda
    zoo::Size size = dog.size();
    int sum = zoo::feed(n) + zoo::feed("x") + zoo::feed(dog, n); // MARK feeds
    sum += animal->legs() + (animal->*method)() + dog.*member;
    sum += herd.sum() + add(1) + zoo::doubled(n) + (int)zoo::doubled(1.5);
    zoo::Dog both = dog + other;
    return sum + temporary + hidden + (int)size + both.legs(); // MARK entry
}
