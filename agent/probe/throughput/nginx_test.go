package throughput_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"ontagent/agent/probe/throughput"
)

// goodput is the payload in what tbf lets through.
const goodput = 1448.0 / 1514

func TestRunAgainstNginx(t *testing.T) {
	if !alone(t) {
		return
	}
	f := newFar(t)
	const mbps = 300
	f.shape(mbps)
	f.nginx(t, "192.0.2.2", "location = /up { client_max_body_size 0; return 200; }")
	defer nothingLeft(t)()
	res, err := throughput.Run(t.Context(), throughput.Options{
		URL: "http://192.0.2.2/large", UploadURL: "http://192.0.2.2/up", Window: 3 * time.Second,
		Note: func(s string) { t.Log(s) },
	})
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.MarshalIndent(res, "", " ")
	t.Logf("%s", text)
	for dir, r := range map[string]*throughput.Rate{"down": res.Down, "up": res.Up} {
		if r.TCPMbps == nil {
			t.Errorf("%s: %s", dir, r.Error)
			continue
		}
		if off := *r.TCPMbps/(mbps*goodput) - 1; math.Abs(off) > 0.005 {
			t.Errorf("%s: %.2f Mbit/s, %.2f %% off", dir, *r.TCPMbps, off*100)
		}
	}
}
