package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"strings"
)

// receipt plays the end of a visit: what the technician read at the splitter
// box, photos, what the customer said – then somebody who exchanges two photos.
func (d *demo) receipt(ctx context.Context) error {
	d.say("The customer's receipt (客户回执) of the first record, under the technician's key: splitter reading, photos, signature, ratings")
	photos := []struct{ name, kind string }{{"cable.png", "cable_route"}, {"box.png", "splitter_port"}, {"signed.png", ""}}
	for i, p := range photos {
		if err := d.paint(p.name, color.Gray{Y: uint8(40 + 80*i)}); err != nil {
			return err
		}
	}
	pair := []string{d.lab.Path("1.record"), d.lab.Path("1.receipt"), d.lab.Path("1.files")}
	if err := d.ctl(
		ctx, 0, "receipt", "make", "--record", pair[0], "--key", d.lab.Path("technician.key"), "--root", d.lab.Path("root.pub"),
		"--splitter-dbm", "-18.7", "--splitter-port", "7", "--photo", "cable_route="+d.lab.Path("cable.png"), "--photo", "splitter_port="+d.lab.Path("box.png"),
		"--signature", d.lab.Path("signed.png"), "--on-behalf", "family", "--rating", "overall=very_satisfied", "--rating", "skill=satisfied",
		"--files", pair[2], "-o", pair[1],
	); err != nil {
		return err
	}
	verify := append([]string{"receipt", "verify", "--root", d.lab.Path("root.pub"), "--lang", d.lang}, pair...)
	if err := d.ctl(ctx, 0, verify...); err != nil {
		return err
	}
	d.say("The same with two photos exchanged")
	// In a copy: what --keep leaves is genuine.
	swapped := d.lab.Path("swapped.files")
	if err := os.CopyFS(swapped, os.DirFS(pair[2])); err != nil {
		return fmt.Errorf("cannot copy photos: %w", err)
	}
	verify[len(verify)-1] = swapped
	for _, swap := range [][2]string{{"cable.png", "held.png"}, {"box.png", "cable.png"}, {"held.png", "box.png"}} {
		if err := os.Rename(swapped+"/"+swap[0], swapped+"/"+swap[1]); err != nil {
			return fmt.Errorf("cannot exchange photos: %w", err)
		}
	}
	said, err := d.told(ctx, 1, verify...)
	if err != nil {
		return err
	}
	if !strings.Contains(said, "box.png") {
		return errors.New("ontctl receipt verify does not name the photos that were exchanged")
	}
	return nil
}

// paint makes a picture for want of a camera.
func (d *demo) paint(name string, c color.Color) error {
	const side = 64
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			if (x/8+y/8)%2 == 0 {
				img.Set(x, y, c)
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return fmt.Errorf("cannot make a picture: %w", err)
	}
	if err := os.WriteFile(d.lab.Path(name), b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("cannot make a picture: %w", err)
	}
	return nil
}
