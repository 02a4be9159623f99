// Command probe tells, for each line that it reads, what time it is and how long an fsync takes.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"
)

func main() {
	f, err := os.CreateTemp("", "probe")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Remove(f.Name())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		began := time.Now()
		if err := f.Sync(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(began.UnixNano(), int64(time.Since(began)))
	}
}
