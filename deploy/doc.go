// Package deploy holds what Ackwise is deployed with, and the tests of it. The manifests of
// deploy/kubernetes are applied to a real Kubernetes API, whose controllers make jobs and pods of
// them; what a pod would run is run as a process, since the API has no nodes.
//
//	manifests ─▶ kubectl apply ─▶ API ─▶ CronJob ─▶ Job ─▶ Pod ─▶ its command, environment and files
//
// It promises nothing about images: there is no container engine in these tests.
package deploy
