"""The TOML file, parsed once into frozen types.

``load`` reads, checks and cross-checks; what comes back needs no further doubt, and no other file sees a raw table.
``check_files`` looks at the disk apart from that, so that a configuration can be checked where it is not going to run.
``file`` is all of it, a frozen model for each table whose field names are the keys, in a file for each subject.
``values`` are the words (networks, names, paths), ``sockets`` where to listen and whom to ask; ``crosscheck`` is what
only several tables together can get wrong, ``loading`` turns every mistake into the operator's words, ``files_read``
tells whether what was read is still what is there.
``conf/cvpnd.toml`` shows each key with its default."""

from cvpnd.config.connection_log import ConnectionLogConfig, LogFilesConfig, SyslogTarget
from cvpnd.config.control_protection import ControlProtectionConfig
from cvpnd.config.daemon import (
    ApiConfig,
    AuditConfig,
    DaemonConfig,
    ManagedConfig,
    MetricsConfig,
    PkiConfig,
    QuotasConfig,
    StatusFileConfig,
    StrangersConfig,
)
from cvpnd.config.directories import DirectoryConfig, LocalUserConfig
from cvpnd.config.endpoint import (
    AssociationConfig,
    AuthenticationConfig,
    EndpointConfig,
    LimitsConfig,
    RouteConfig,
    RuleConfig,
    ServerCertificateConfig,
    TlsConfig,
)
from cvpnd.config.file import Config
from cvpnd.config.files_read import FilesRead
from cvpnd.config.handlers import HandlerConfig
from cvpnd.config.loading import ConfigError, check_files, files_read, load
from cvpnd.config.mfa import inherit_mfa
from cvpnd.config.networks import EgressConfig, SecurityGroupConfig, SubnetConfig, VpcConfig
from cvpnd.config.portal import PortalConfig
from cvpnd.config.radius import RadiusConfig
from cvpnd.config.saml import SamlProviderConfig
from cvpnd.config.sockets import ApiListen, LdapUrl, Listen, RadiusUrl, SocketName
from cvpnd.config.values import DATA_CIPHERS, LOCAL, LOCAL_DIRECTORY, covers

__all__ = [
    "DATA_CIPHERS",
    "LOCAL",
    "LOCAL_DIRECTORY",
    "ApiConfig",
    "ApiListen",
    "AssociationConfig",
    "AuditConfig",
    "AuthenticationConfig",
    "Config",
    "ConfigError",
    "ConnectionLogConfig",
    "ControlProtectionConfig",
    "DaemonConfig",
    "DirectoryConfig",
    "EgressConfig",
    "EndpointConfig",
    "FilesRead",
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
    "files_read",
    "inherit_mfa",
    "load",
]
