// SPDX-License-Identifier: Apache-2.0

// The line server of apps.py in Go: goroutines on many threads, the runtime's epoll, preemption signals, timers.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
)

func main() {
	var count, ticks, spins int64
	go func() {
		for range time.Tick(10 * time.Millisecond) {
			atomic.AddInt64(&ticks, 1)
		}
	}()
	for i := 0; i < 4; i++ {
		go func() {
			for {
				atomic.AddInt64(&spins, 1)
				time.Sleep(time.Millisecond)
			}
		}()
	}
	listener, err := net.Listen("tcp4", "0.0.0.0:"+os.Args[1])
	if err != nil {
		panic(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			lines := bufio.NewScanner(connection)
			for lines.Scan() {
				if lines.Text() == "inc" {
					fmt.Fprintf(connection, "%d %d\n", atomic.AddInt64(&count, 1), atomic.LoadInt64(&ticks))
				}
			}
		}()
	}
}
