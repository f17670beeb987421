package fleet_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"ontagent/cmd/ontlab/fleet"
)

// Packets as a client and a broker send them: what is in them is not looked
// at.
var (
	ping    = []byte{0xc0, 0x00}
	publish = append([]byte{0x30, 0x80, 0x01}, make([]byte, 128)...)
)

func TestRelayCuts(t *testing.T) {
	for _, c := range []struct {
		name string
		cut  fleet.Cut
		up   int // bytes that reach the broker of ping, publish, ping
		down int // bytes that reach the client of publish, ping, ping
	}{
		{"before, up", fleet.Cut{Packet: 2}, 2, 0},
		{"inside, up", fleet.Cut{Packet: 2, Where: fleet.Inside, Reset: true}, 2 + 65, 0},
		{"after, up", fleet.Cut{Packet: 2, Where: fleet.After}, 2 + 131, 0},
		{"before, down", fleet.Cut{Packet: 1, Down: true}, 0, 0},
		{"inside, down", fleet.Cut{Packet: 1, Down: true, Where: fleet.Inside}, 0, 65},
		{"after, down", fleet.Cut{Packet: 3, Down: true, Where: fleet.After, Reset: true}, 0, 135},
	} {
		t.Run(c.name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			accepted, made := 0, make(chan fleet.Cut, 1)
			relay, err := fleet.NewRelay(t.Context(), fleet.RelayOptions{
				Broker: listener.Addr().String(), Plan: func(int) fleet.Cut { return c.cut },
				Accepted: func(time.Time) { accepted++ }, Made: func(c fleet.Cut, _ time.Time) { made <- c },
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			wg.Go(func() { _ = relay.Serve(ctx) })
			client, err := net.Dial("tcp", relay.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			broker, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			from, to, packets := client, broker, [][]byte{ping, publish, ping}
			want := c.up
			if c.cut.Down {
				from, to, packets, want = broker, client, [][]byte{publish, ping, ping}, c.down
			}
			for _, p := range packets {
				if _, err := from.Write(p); err != nil && !c.cut.Down && !c.cut.Reset {
					break // cut already
				}
			}
			for _, conn := range []net.Conn{from, to} {
				_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			}
			got, err := io.ReadAll(to)
			// A side that still sends sees RST in either case.
			if err != nil && !errors.Is(err, syscall.ECONNRESET) || c.cut.Reset && err == nil {
				t.Errorf("receiving side ended by %v", err)
			}
			if all := bytes.Join(packets, nil); !bytes.Equal(got, all[:want]) {
				t.Errorf("%d bytes got through, want %d", len(got), want)
			}
			if _, err := io.ReadAll(from); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the sending side was not ended")
			}
			if m := <-made; m != c.cut || accepted != 1 {
				t.Errorf("told of %+v and %d connections", m, accepted)
			}
		})
	}
}

func TestRelayWithoutBroker(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	relay, err := fleet.NewRelay(t.Context(), fleet.RelayOptions{Broker: listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- relay.Serve(ctx) }()
	client, err := net.Dial("tcp", relay.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := client.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended by %v", err)
	}
}

func FuzzReadPacket(f *testing.F) {
	f.Add(ping)
	f.Add(publish)
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x01})
	f.Fuzz(func(t *testing.T, stream []byte) {
		in := bufio.NewReader(bytes.NewReader(stream))
		var passed []byte
		for {
			packet, err := fleet.ReadPacket(in, nil)
			if err != nil {
				break
			}
			passed = append(passed, packet...)
		}
		if !bytes.HasPrefix(stream, passed) {
			t.Errorf("% x became % x", stream, passed)
		}
	})
}
