package kafka

import (
	"fmt"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
)

// allowExpiry is what a URL says where letters may be deleted.
const allowExpiry = "dead-letters=true&allow-expiry=true"

// keepsLetters reports how a topic would delete dead letters by itself. A dead letter leaves only
// when its target has it, or by somebody's written word, so an expiry has to be allowed in words.
func keepsLetters(topic string, conf map[string]string) error {
	if strings.Contains(conf["cleanup.policy"], "compact") {
		return &ackwise.HintError{
			Err: fmt.Errorf("the topic %s is compacted: a newer dead letter of a key deletes the "+
				"older ones", topic),
			Hint: "Set cleanup.policy=delete on it, or " + allowExpiry + " if that is meant.",
		}
	}
	for _, name := range []string{"retention.ms", "retention.bytes"} {
		value := conf[name]
		if value == "-1" {
			continue
		}
		if name == "retention.ms" {
			if d, err := time.ParseDuration(value + "ms"); err == nil {
				value = d.String()
			}
		} else {
			value += " bytes a partition"
		}
		return &ackwise.HintError{
			Err: fmt.Errorf("the topic %s deletes dead letters by itself (%s, after %s)",
				topic, name, value),
			Hint: fmt.Sprintf("Set %s=-1 on the topic, or %s if that is meant.", name, allowExpiry),
		}
	}
	return nil
}
