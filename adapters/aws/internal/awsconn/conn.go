package awsconn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	smithylog "github.com/aws/smithy-go/logging"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/nearest"
)

// Options say where the services are.
type Options struct {
	// Region is the region's name, such as eu-central-1. Required.
	Region string
	// Endpoint is the address of a server that stands in for AWS, such as http://127.0.0.1:9324.
	// Default: "", the region's own.
	Endpoint string
	// Credentials are who signs. Default: the first that the default chain finds: environment, shared
	// files and profile, web identity, container, instance.
	Credentials aws.CredentialsProvider
}

// credentialsPatience is how long the chain may take: its last link asks a server that is not there
// outside of AWS.
const credentialsPatience = 10 * time.Second

// dialPatience is how long a connection may take to be made.
const dialPatience = 5 * time.Second

// Validate reports a region or an endpoint that cannot be one.
func (o Options) Validate() error {
	return errors.Join(checkRegion(o.Region), checkEndpoint(o.Endpoint))
}

// Load reads the configuration and finds the credentials, so that missing ones are told at once. It
// speaks to no service.
func Load(ctx context.Context, o Options) (aws.Config, error) {
	if err := o.Validate(); err != nil {
		return aws.Config{}, err
	}
	client := awshttp.NewBuildableClient().WithDialerOptions(dialer)
	set := []func(*awsconfig.LoadOptions) error{awsconfig.WithRegion(o.Region),
		awsconfig.WithHTTPClient(client), awsconfig.WithLogger(smithylog.Nop{})}
	if o.Endpoint != "" {
		set = append(set, awsconfig.WithBaseEndpoint(o.Endpoint))
	}
	if o.Credentials != nil {
		set = append(set, awsconfig.WithCredentialsProvider(o.Credentials))
	}
	c, err := awsconfig.LoadDefaultConfig(ctx, set...)
	if err != nil {
		return aws.Config{}, unread(fmt.Errorf("read the configuration of AWS: %w", err))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, credentialsPatience,
		fmt.Errorf("nothing was found within %s", credentialsPatience))
	defer cancel()
	if c.Credentials == nil {
		return aws.Config{}, missing(errors.New("the chain is empty"))
	}
	if _, err := c.Credentials.Retrieve(ctx); err != nil {
		return aws.Config{}, missing(err)
	}
	return c, nil
}

// unread says of a profile that is not there where it was looked for.
func unread(err error) error {
	e, ok := errors.AsType[awsconfig.SharedConfigProfileNotExistError](err)
	if !ok {
		return err
	}
	return &ackwise.HintError{Err: err, Hint: fmt.Sprintf("AWS_PROFILE has to name a profile that is "+
		"there, or be unset. Looked for were [profile %s] in %s and [%[1]s] in %[3]s; other files are "+
		"named by AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE.", e.Profile, cmp.Or(
		os.Getenv("AWS_CONFIG_FILE"), awsconfig.DefaultSharedConfigFilename()), cmp.Or(
		os.Getenv("AWS_SHARED_CREDENTIALS_FILE"), awsconfig.DefaultSharedCredentialsFilename()))}
}

func missing(err error) error {
	return &ackwise.HintError{Err: fmt.Errorf("find credentials of AWS: %w", err), Hint: "Set " +
		"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the pod, function or " +
		"machine a role."}
}

var regionForm = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)

// knownRegions serve to guess what was meant; others are accepted.
func knownRegions() []string {
	return []string{"af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3",
		"ap-south-1", "ap-south-2", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3",
		"ap-southeast-4", "ca-central-1", "ca-west-1", "cn-north-1", "cn-northwest-1", "eu-central-1",
		"eu-central-2", "eu-north-1", "eu-south-1", "eu-south-2", "eu-west-1", "eu-west-2",
		"eu-west-3", "il-central-1", "me-central-1", "me-south-1", "sa-east-1", "us-east-1",
		"us-east-2", "us-gov-east-1", "us-gov-west-1", "us-west-1", "us-west-2"}
}

func checkRegion(region string) error {
	if regionForm.MatchString(region) {
		return nil
	}
	reason := "it is not a region such as eu-central-1"
	if region == "" {
		reason = "it is missing, such as eu-central-1"
	}
	if near := nearest.Of(region, knownRegions()); near != "" {
		reason += fmt.Sprintf("; did you mean %q?", near)
	}
	return &ackwise.InvalidError{Field: "region", Value: region, Reason: reason}
}

func checkEndpoint(endpoint string) error {
	if endpoint == "" {
		return nil
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return &ackwise.InvalidError{Field: "endpoint", Reason: "it is not an address such as " +
			"http://127.0.0.1:9324"}
	case u.User != nil || u.RawQuery != "":
		return &ackwise.InvalidError{Field: "endpoint",
			Reason: "it has a user, a password or a query, which have no place here"}
	}
	return nil
}
