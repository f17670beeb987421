package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// probeHead is what the verb adds to the result of a probe.
type probeHead struct {
	Probe     string `json:"probe"`
	SessionUp *bool  `json:"session_up,omitempty"` // of pppoe
	LineUp    *bool  `json:"line_up,omitempty"`    // of dhcp
	Note      string `json:"note,omitempty"`
	// NotMeasured is why the result is missing, or not whole.
	NotMeasured string `json:"not_measured,omitempty"`
}

// print prints the result and returns its outcome.
func (p *probing) print(result any, failure error) (outcome string, err error) {
	if failure != nil {
		p.head.NotMeasured = failure.Error()
	}
	data, err := json.Marshal(p.head)
	if err == nil && result != nil {
		var rest []byte
		if rest, err = json.Marshal(result); len(rest) > len("{}") {
			data[len(data)-1] = ','
			data = append(data, rest[1:]...)
		}
	}
	if err != nil {
		return "", fmt.Errorf("cannot encode result: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	all, err := readNode(d)
	if err != nil {
		return "", fmt.Errorf("cannot read result: %w", err)
	}
	var first, others []node
	for _, n := range all.kids {
		switch n.name {
		case "outcome":
			outcome = n.text
			if _, meaning := outcomeIn(p.outcomes, outcome); meaning != "" {
				n.text += ": " + meaning
			}
			first = append(first, n)
		case "probe", "not_measured": // the latter is told on standard error
		default:
			others = append(others, n)
		}
	}
	var out bytes.Buffer
	switch {
	case p.json:
		escape(&out, string(data))
	case result != nil:
		all.kids = append(first, others...)
		all.write(&out, "")
	}
	_, err = p.out.Write(out.Bytes())
	return outcome, err
}

// escape writes a line of JSON without what a terminal could take for a command.
func escape(out *bytes.Buffer, data string) {
	for _, r := range data {
		if r < 0x7f || r > 0xffff || strconv.IsPrint(r) {
			out.WriteRune(r)
		} else {
			fmt.Fprintf(out, "\\u%04x", r)
		}
	}
	out.WriteByte('\n')
}

// node is a value of the result, for people.
type node struct {
	name string
	text string // "" of what is zero, and of what has kids
	kids []node // of an object, or of a list
	list bool
}

func readNode(d *json.Decoder) (node, error) {
	t, err := d.Token()
	if err != nil {
		return node{}, err
	}
	switch t := t.(type) {
	case string:
		return node{text: printable(t)}, nil
	case json.Number:
		return node{text: shorten(t.String())}, nil
	case bool:
		if t {
			return node{text: "yes"}, nil
		}
	case json.Delim:
		n := node{list: t == '['}
		for d.More() {
			name := ""
			if !n.list {
				key, err := d.Token()
				if err != nil {
					return node{}, err
				}
				name, _ = key.(string)
			}
			kid, err := readNode(d)
			if err != nil {
				return node{}, err
			}
			kid.name = name
			n.kids = append(n.kids, kid)
		}
		_, err := d.Token()
		return n, err
	}
	return node{}, nil
}

// shorten rounds a number to what people read; zero is "".
func shorten(s string) string {
	if s == "0" {
		return ""
	}
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	short := strings.TrimRight(strings.TrimRight(strconv.FormatFloat(f, 'f', 3, 64), "0"), ".")
	if short == "0" || short == "-0" {
		return s
	}
	return short
}

// printable replaces what a terminal could take for a command.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '·'
	}, strings.TrimSpace(s))
}

// The layout of what is printed for people.
const (
	lineWidth = 140 // of values that are put into one line
	listLines = 12  // of a list; JSON has all
)

// zero reports whether there is nothing to print.
func (n *node) zero() bool {
	if n.text != "" {
		return false
	}
	for i := range n.kids {
		if !n.kids[i].zero() {
			return false
		}
	}
	return true
}

// shown reports whether a value of an object that is printed is printed. Of
// zeros, only those are that say much.
func (n *node) shown() bool {
	return !n.zero() || n.name == "received" || n.name == "seq" || strings.HasSuffix(n.name, "loss_ratio")
}

// line is the value in one line; false if it doesn't fit into one.
func (n *node) line() (string, bool) {
	if n.kids == nil {
		if n.text == "" {
			return "0", true
		}
		return n.text, true
	}
	var parts []string
	for i := range n.kids {
		kid := &n.kids[i]
		if !n.list && !kid.shown() {
			continue
		}
		part, fits := kid.line()
		if !fits || kid.kids != nil && !kid.list {
			return "", false
		}
		if !n.list {
			part = kid.name + " " + part
		}
		parts = append(parts, part)
	}
	sep := ", "
	if n.list {
		sep = " "
	}
	text := strings.Join(parts, sep)
	return text, len(text) <= lineWidth || n.list
}

// write writes an object, a value a line.
func (n *node) write(out *bytes.Buffer, indent string) {
	width := 0 // of names
	for i := range n.kids {
		if n.kids[i].shown() {
			width = max(width, len(n.kids[i].name))
		}
	}
	for i := range n.kids {
		kid := &n.kids[i]
		if !kid.shown() {
			continue
		}
		values := []node{*kid}
		if kid.list && kid.kids[0].kids != nil {
			values = kid.kids
		}
		for j := range values {
			if j == listLines {
				fmt.Fprintf(out, "%s%-*s  … %d more: see --json\n", indent, width, kid.name, len(values)-j)
				break
			}
			if text, fits := values[j].line(); fits {
				fmt.Fprintf(out, "%s%-*s  %s\n", indent, width, kid.name, text)
				continue
			}
			fmt.Fprintf(out, "%s%s\n", indent, kid.name)
			values[j].write(out, indent+"  ")
		}
	}
}
