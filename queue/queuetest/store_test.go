package queuetest

import "testing"

func TestTheStoreKeepsTheContract(t *testing.T) { Run(t, OpenStore) }
