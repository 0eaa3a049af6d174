// SPDX-License-Identifier: Apache-2.0
// A program that uses go-criu, which knows swrk only: the same words as libcriu_client.c.
package main

import (
	"fmt"
	"os"
	"strconv"

	criu "github.com/checkpoint-restore/go-criu"
	"github.com/checkpoint-restore/go-criu/rpc"
	"google.golang.org/protobuf/proto"
)

type notify struct{ criu.NoNotify }

func (notify) PreDump() error {
	fmt.Println("notify pre-dump 0")
	return nil
}
func (notify) PostDump() error {
	fmt.Println("notify post-dump 0")
	return nil
}
func (notify) PostRestore(pid int32) error {
	fmt.Println("notify post-restore", pid)
	return nil
}

func run() error {
	c := criu.MakeCriu()
	c.SetCriuPath(os.Args[2])
	command := os.Args[3]
	switch command {
	case "version":
		version, err := c.GetCriuVersion()
		fmt.Println("version", version)
		return err
	case "feature":
		_, err := c.FeatureCheck(&rpc.CriuFeatures{MemTrack: proto.Bool(true)})
		return err
	}
	images, err := os.Open(os.Args[4])
	if err != nil {
		return err
	}
	options := &rpc.CriuOpts{ImagesDirFd: proto.Int32(int32(images.Fd())), LogLevel: proto.Int32(4), LogFile: proto.String("go-criu.log")}
	if len(os.Args) > 5 {
		pid, _ := strconv.Atoi(os.Args[5])
		options.Pid = proto.Int32(int32(pid))
	}
	switch command {
	case "dump":
		return c.Dump(options, notify{})
	case "pre-dump":
		return c.PreDump(options, notify{})
	case "restore":
		return c.Restore(options, notify{})
	}
	return fmt.Errorf("unknown command %s", command)
}

func main() {
	if err := run(); err != nil {
		fmt.Println(os.Args[3], "failed:", err)
		os.Exit(1)
	}
	fmt.Println(os.Args[3], "done")
}
