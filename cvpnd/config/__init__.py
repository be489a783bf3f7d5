"""The TOML file, parsed once into frozen types.

``load`` reads, checks and cross-checks; what comes back needs no further doubt, and no other file sees a raw table.
``check_files`` looks at the disk apart from that, so that a configuration can be checked where it is not going to run.
``values`` are the words (networks, listen URLs, names), ``models`` the tables, ``crosscheck`` what only several
tables together can get wrong, ``loading`` turns every mistake into the operator's words. ``conf/cvpnd.toml`` shows
each key with its default."""

from cvpnd.config.connection_log import ConnectionLogConfig, LogFilesConfig, SyslogTarget
from cvpnd.config.handlers import HandlerConfig
from cvpnd.config.loading import ConfigError, check_files, load
from cvpnd.config.mfa import inherit_mfa
from cvpnd.config.models import (
    ApiConfig,
    AssociationConfig,
    AuthenticationConfig,
    Config,
    ControlProtectionConfig,
    DaemonConfig,
    DirectoryConfig,
    EgressConfig,
    EndpointConfig,
    LimitsConfig,
    LocalUserConfig,
    ManagedConfig,
    MetricsConfig,
    PkiConfig,
    QuotasConfig,
    RouteConfig,
    RuleConfig,
    SecurityGroupConfig,
    ServerCertificateConfig,
    StatusFileConfig,
    StrangersConfig,
    SubnetConfig,
    TlsConfig,
    VpcConfig,
)
from cvpnd.config.portal import PortalConfig
from cvpnd.config.radius import RadiusConfig
from cvpnd.config.saml import SamlProviderConfig
from cvpnd.config.values import (
    DATA_CIPHERS,
    LOCAL,
    LOCAL_DIRECTORY,
    ApiListen,
    LdapUrl,
    Listen,
    RadiusUrl,
    SocketName,
    covers,
)

__all__ = [
    "DATA_CIPHERS",
    "LOCAL",
    "LOCAL_DIRECTORY",
    "ApiConfig",
    "ApiListen",
    "AssociationConfig",
    "AuthenticationConfig",
    "Config",
    "ConfigError",
    "ConnectionLogConfig",
    "ControlProtectionConfig",
    "DaemonConfig",
    "DirectoryConfig",
    "EgressConfig",
    "EndpointConfig",
    "HandlerConfig",
    "LdapUrl",
    "LimitsConfig",
    "Listen",
    "LocalUserConfig",
    "LogFilesConfig",
    "ManagedConfig",
    "MetricsConfig",
    "PkiConfig",
    "PortalConfig",
    "QuotasConfig",
    "RadiusConfig",
    "RadiusUrl",
    "RouteConfig",
    "RuleConfig",
    "SamlProviderConfig",
    "SecurityGroupConfig",
    "ServerCertificateConfig",
    "SocketName",
    "StatusFileConfig",
    "StrangersConfig",
    "SubnetConfig",
    "SyslogTarget",
    "TlsConfig",
    "VpcConfig",
    "check_files",
    "covers",
    "inherit_mfa",
    "load",
]
