// Throws and catches, within the library.
extern "C" int throws(int number) {
    try {
        if (number >= 0)
            throw number;
        return 0;
    } catch (int caught) {
        return caught + 1;
    }
}
