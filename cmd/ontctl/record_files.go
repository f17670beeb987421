package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/color"
	"image/jpeg"
	_ "image/png" // photos are JPEG or PNG
	"path/filepath"

	"ontagent/agent/record"
	"ontagent/cmd/ontctl/render"
)

// A picture on a page is small: for the photo itself there is the file.
const (
	thumbnailSide   = 320       // pixels
	maxPicturePixel = 64 << 20  // larger ones are not decoded: they would take a GiB
	maxThumbnails   = 512 << 10 // bytes in all, so that the page can still be mailed
)

// findAttachments looks for a receipt's files in dir, and in nothing that dir
// leads out to. It reports whether one is there that is not the one named, or
// that was added; those among except are not.
func findAttachments(dir string, list []record.Attachment, except ...string) (files map[string]render.File, wrong bool, err error) {
	checks, err := checkAttachments(dir, list, except...)
	if err != nil {
		return nil, false, err
	}
	files, room := map[string]render.File{}, maxThumbnails
	for _, c := range checks {
		f := render.File{State: render.FileBad}
		switch c.State {
		case attachedOK:
			f.State = render.FileThere
			data, err := readAttached(filepath.Join(dir, c.Name))
			if err != nil {
				return nil, false, fmt.Errorf("%s: %w", clean(c.Name), err)
			}
			if small := thumbnail(data); len(small) > 0 && len(small) <= room {
				room -= len(small)
				// What was decoded and encoded anew carries no place and no script.
				f.Thumbnail = template.URL("data:image/jpeg;base64," + base64.StdEncoding.EncodeToString(small)) //nolint:gosec // see above
			}
		case attachedMissing, attachedUnknown:
			f.State = render.FileMissing
		case attachedSwapped:
			f.State, f.Of = render.FileSwapped, c.Of
		case attachedAltered:
			f.State = render.FileSwapped
		case attachedLater:
			f.State = render.FileAdded
		case attachedBad:
		}
		wrong = wrong || f.State != render.FileThere && f.State != render.FileMissing
		files[c.Name] = f
	}
	return files, wrong, nil
}

// thumbnail returns a small JPEG of a picture; nil of what is none.
func thumbnail(data []byte) []byte {
	config, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || config.Width <= 0 || config.Height <= 0 || int64(config.Width)*int64(config.Height) > maxPicturePixel {
		return nil
	}
	src, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, shrink(src), &jpeg.Options{Quality: 75}); err != nil {
		return nil
	}
	return b.Bytes()
}

// shrink fits a picture into the thumbnail, on white. Each pixel is the mean of
// up to 64 of the original's.
func shrink(src image.Image) image.Image {
	in := src.Bounds()
	w, h := in.Dx(), in.Dy()
	if longest := max(w, h); longest > thumbnailSide {
		w, h = max(1, w*thumbnailSide/longest), max(1, h*thumbnailSide/longest)
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		y0, y1 := in.Min.Y+y*in.Dy()/h, in.Min.Y+(y+1)*in.Dy()/h
		for x := range w {
			x0, x1 := in.Min.X+x*in.Dx()/w, in.Min.X+(x+1)*in.Dx()/w
			out.Set(x, y, mean(src, x0, y0, max(x1, x0+1), max(y1, y0+1)))
		}
	}
	return out
}

func mean(src image.Image, x0, y0, x1, y1 int) color.Color {
	var r, g, b, n uint64
	for y := y0; y < y1; y += max(1, (y1-y0)/8) {
		for x := x0; x < x1; x += max(1, (x1-x0)/8) {
			pr, pg, pb, pa := src.At(x, y).RGBA() // premultiplied, of 0xffff
			white := 0xffff - uint64(pa)
			r, g, b, n = r+uint64(pr)+white, g+uint64(pg)+white, b+uint64(pb)+white, n+1
		}
	}
	return color.RGBA64{uint16(r / n), uint16(g / n), uint16(b / n), 0xffff}
}
