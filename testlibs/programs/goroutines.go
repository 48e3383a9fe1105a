// A Go library with a C interface: goroutines, maps, the garbage collector, and panics.
package main

import "C"

import (
	"os"
	"runtime"
	"sync"
)

type node struct {
	next *node
	data [64]int
}

//export SumOfSquares
func SumOfSquares(n C.int) C.longlong {
	squares := make(chan int, 16)
	found := map[int]int{}
	var lock sync.Mutex
	var workers sync.WaitGroup
	for worker := 0; worker < 8; worker++ {
		workers.Add(1)
		go func(worker int) {
			defer workers.Done()
			var list *node
			for i := worker; i < int(n); i += 8 {
				list = &node{next: list}
				list.data[i%64] = i
				if i%512 == 0 {
					list = nil
				}
				lock.Lock()
				found[i] = i * i
				lock.Unlock()
				squares <- i * i
			}
			runtime.KeepAlive(list)
		}(worker)
	}
	go func() {
		workers.Wait()
		close(squares)
	}()
	sum := 0
	for square := range squares {
		sum += square
	}
	runtime.GC()
	for i := 0; i < int(n); i++ {
		if found[i] != i*i {
			return -1
		}
	}
	return C.longlong(sum)
}

// Collections that were made so far.
//
//export Collections
func Collections() C.int {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return C.int(stats.NumGC)
}

// 1 if a panic of ours, 2 if also one that starts as a signal, was recovered from.
//
//export Recovered
func Recovered() (recovered C.int) {
	try := func(what func()) {
		defer func() {
			if recover() != nil {
				recovered++
			}
		}()
		what()
	}
	var none *node
	try(func() { panic("ours") })
	try(func() { none.data[3] = 1 })
	return
}

// The number of the process's arguments, or -1 if the first is not as expected.
//
//export Arguments
func Arguments(first *C.char) C.int {
	if len(os.Args) == 0 || os.Args[0] != C.GoString(first) || os.Getenv("PATH") == "" {
		return -1
	}
	return C.int(len(os.Args))
}

func main() {}
