package main

import (
	"fmt"
	"runtime/debug"
)

type versionCmd struct{ jsonFlag }

// buildVersion is what the build says of itself.
type buildVersion struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
}

// versionOf reads what the build says.
func versionOf() buildVersion {
	v := buildVersion{Version: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version, v.Go = info.Main.Version, info.GoVersion
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.time":
				v.Time = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	return v
}

// Run prints the version.
func (c *versionCmd) Run(a *app) error {
	v := versionOf()
	if c.JSON {
		return writeJSON(a.out, v)
	}
	text := "ackwise " + v.Version
	if v.Revision != "" {
		text += " " + v.Revision
	}
	_, err := fmt.Fprintf(a.out, "%s %s\n", text, v.Go)
	return err
}
