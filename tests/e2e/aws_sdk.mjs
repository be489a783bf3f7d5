// What an administrator's program does with the AWS SDK for JavaScript, unmodified. Prints what it saw as JSON.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.SDK + "/");
const ec2Sdk = require("@aws-sdk/client-ec2");
const acmSdk = require("@aws-sdk/client-acm");
const iamSdk = require("@aws-sdk/client-iam");
const stsSdk = require("@aws-sdk/client-sts");
const logsSdk = require("@aws-sdk/client-cloudwatch-logs");

const given = JSON.parse(readFileSync(0, "utf8"));
const options = {
  endpoint: given.api,
  region: "eu-central-1",
  credentials: { accessKeyId: given.key, secretAccessKey: given.secret },
  maxAttempts: 1,
};
const ec2 = new ec2Sdk.EC2(options);
const acm = new acmSdk.ACM(options);
const iam = new iamSdk.IAM(options);
const sts = new stsSdk.STS(options);
const logs = new logsSdk.CloudWatchLogs(options);

async function refusal(promise) {
  try {
    await promise;
    return "";
  } catch (error) {
    return `${error.name} ${error.$metadata?.httpStatusCode}`;
  }
}

// The paginators write NextToken into the request that they are given.
async function all(paginate, request, key) {
  const found = [];
  let pages = 0;
  for await (const page of paginate({ client: ec2, pageSize: 5 }, { ...request })) {
    pages += 1;
    found.push(...page[key]);
  }
  return { pages, found };
}

async function until(look, state) {
  for (let turn = 0; turn < 50; turn += 1) {
    const code = await look();
    if (code === state) return code;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return "never";
}

const seen = {};
seen.account = (await sts.getCallerIdentity({})).Account;
const { CertificateArn } = await acm.importCertificate({
  Certificate: Buffer.from(given.certificate),
  PrivateKey: Buffer.from(given.privateKey),
  CertificateChain: Buffer.from(given.chain),
  Tags: [{ Key: "made", Value: "by JavaScript" }],
});
seen.certificate = (await acm.describeCertificate({ CertificateArn })).Certificate.CertificateArn === CertificateArn;
seen.tags = (await acm.listTagsForCertificate({ CertificateArn })).Tags;
const { SAMLProviderArn } = await iam.createSAMLProvider({ Name: "js", SAMLMetadataDocument: given.metadata });
seen.metadata = (await iam.getSAMLProvider({ SAMLProviderArn })).SAMLMetadataDocument.trim() === given.metadata.trim();
await logs.createLogGroup({ logGroupName: "/js" });
await logs.createLogStream({ logGroupName: "/js", logStreamName: "one" });
seen.streams = (await logs.describeLogStreams({ logGroupName: "/js" })).logStreams.map((each) => each.logStreamName);

const made = await ec2.createClientVpnEndpoint({
  ClientCidrBlock: "10.100.0.0/22",
  ServerCertificateArn: CertificateArn,
  AuthenticationOptions: [
    { Type: "certificate-authentication", MutualAuthentication: { ClientRootCertificateChainArn: CertificateArn } },
  ],
  ConnectionLogOptions: { Enabled: true, CloudwatchLogGroup: "/js", CloudwatchLogStream: "one" },
  ClientLoginBannerOptions: { Enabled: true, BannerText: "Grüße & <willkommen>" },
  SplitTunnel: true,
  TagSpecifications: [{ ResourceType: "client-vpn-endpoint", Tags: [{ Key: "Name", Value: "js" }] }],
});
const endpoint = { ClientVpnEndpointId: made.ClientVpnEndpointId };
const { AssociationId } = await ec2.associateClientVpnTargetNetwork({ ...endpoint, SubnetId: "subnet-a" });
for (let number = 0; number < 12; number += 1)
  await ec2.authorizeClientVpnIngress({
    ...endpoint,
    TargetNetworkCidr: `10.20.${number}.0/24`,
    AccessGroupId: `group ${number} ä&=`,
    Description: "plus + und ~",
  });
await ec2.createClientVpnRoute({ ...endpoint, DestinationCidrBlock: "172.16.0.0/16", TargetVpcSubnetId: "subnet-a" });
const rules = await all(ec2Sdk.paginateDescribeClientVpnAuthorizationRules, endpoint, "AuthorizationRules");
seen.rules = { pages: rules.pages, groups: rules.found.map((rule) => rule.GroupId), text: rules.found[0].Description };
const routes = await all(ec2Sdk.paginateDescribeClientVpnRoutes, endpoint, "Routes");
seen.routes = routes.found.map((route) => `${route.DestinationCidr} ${route.Origin}`);
const [shown] = (await ec2.describeClientVpnEndpoints({ ClientVpnEndpointIds: [made.ClientVpnEndpointId] }))
  .ClientVpnEndpoints;
seen.banner = shown.ClientLoginBannerOptions.BannerText;
seen.status = shown.Status.Code;
seen.name = shown.Tags;
seen.profile = (await ec2.exportClientVpnClientConfiguration(endpoint)).ClientConfiguration.startsWith("client");
const again = { ...endpoint, TargetNetworkCidr: "10.20.0.0/24", AccessGroupId: "group 0 ä&=" };
seen.duplicate = await refusal(ec2.authorizeClientVpnIngress(again));
seen.dryRun = await refusal(ec2.modifyClientVpnEndpoint({ ...endpoint, SplitTunnel: false, DryRun: true }));
// An hour behind: the SDK takes the time from the refusal's Date and signs once more.
const slow = { ...options, maxAttempts: 2, systemClockOffset: -3600e3 };
seen.slowClock = (await new ec2Sdk.EC2(slow).describeClientVpnEndpoints({})).ClientVpnEndpoints.length;
seen.slowClockOfLogs = (await new logsSdk.CloudWatchLogs(slow).describeLogGroups({})).logGroups.length;
seen.wrongSecret = await refusal(
  new ec2Sdk.EC2({ ...options, credentials: { accessKeyId: given.key, secretAccessKey: "wrong" } }).describeVpcs({}),
);
const token = { ...endpoint, ClientToken: "once", TargetNetworkCidr: "10.20.99.0/24", AuthorizeAllGroups: true };
seen.once = (await Promise.all([1, 2, 3].map(() => ec2.authorizeClientVpnIngress(token)))).map((each) => each.Status.Code);
seen.onceOnly = await refusal(ec2.authorizeClientVpnIngress({ ...token, Description: "another" }));
seen.inUse = await refusal(ec2.deleteClientVpnEndpoint(endpoint));
seen.certificateInUse = await refusal(acm.deleteCertificate({ CertificateArn }));
seen.unknownProvider = await refusal(iam.getSAMLProvider({ SAMLProviderArn: `${SAMLProviderArn}x` }));
seen.unknownGroup = await refusal(logs.describeLogStreams({ logGroupName: "/none" }));

const networks = { ...endpoint, AssociationIds: [AssociationId] };
const network = async () =>
  (await ec2.describeClientVpnTargetNetworks(networks)).ClientVpnTargetNetworks[0].Status.Code;
await until(network, "associated");
await ec2.disassociateClientVpnTargetNetwork({ ...endpoint, AssociationId });
seen.disassociated = await until(network, "disassociated");
await ec2.deleteClientVpnEndpoint(endpoint);
const one = { ClientVpnEndpointIds: [made.ClientVpnEndpointId] };
seen.deleted = await until(
  async () => (await ec2.describeClientVpnEndpoints(one)).ClientVpnEndpoints[0].Status.Code,
  "deleted",
);
await acm.deleteCertificate({ CertificateArn });
await iam.deleteSAMLProvider({ SAMLProviderArn });
console.log(JSON.stringify(seen));
