// What a debugger is shown of Go: a structure, a slice, a map, a package's variable. The marks are
// where tests set breakpoints.
package main

import "C"

type Point struct {
	X, Y int
}

var Calls = 3

//go:noinline
func Area(corner Point, scale int) int {
	sides := []int{corner.X, corner.Y}
	word := "word"
	names := map[string]int{"one": 1}
	product := sides[0] * scale
	Calls++ // MARK area
	return product + len(word) + names["one"]
}

//export entry
func entry(n C.int) C.int {
	return C.int(Area(Point{6, 7}, int(n))) // MARK entry
}

func main() {}
