"""Alerts by e-mail."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate

from finops_dagster.alerts.alert import Alert
from finops_dagster.alerts.send import SECONDS, SendFailed, network_problem, read_secret
from finops_dagster.alerts.settings import SmtpSettings


@dataclass(frozen=True)
class MailServer:
    """A channel that sends alerts by e-mail; the settings name the server and the addresses."""

    settings: SmtpSettings

    def send(self, alert: Alert) -> str:
        """Send an alert; see `Channel`.

        It counts as sent if the server accepts one of the receivers; the line that is returned
        names those that the server refused.
        """
        settings = self.settings
        password = read_secret(settings.password_env) if settings.password_env else ""
        place = f"{settings.host}:{settings.port}"
        # Raised after the block: the errors of smtplib may repeat what the server wrote.
        try:
            with closing(self._connect()) as server:
                if settings.user is not None:
                    server.login(settings.user, password)
                refused = server.send_message(_mail(settings, alert))
                # The server has accepted the mail: a later error must not send it again.
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
            refusals = f"; it refused {', '.join(refused)}" if refused else ""
            return f"{place} took the mail{refusals}"
        except smtplib.SMTPAuthenticationError as error:
            problem = f"{place} refuses the login ({error.smtp_code}); check user and password_env"
        except smtplib.SMTPRecipientsRefused:
            problem = f"{place} refuses every receiver; check alerts.smtp.to"
        except smtplib.SMTPSenderRefused as error:
            problem = f"{place} refuses the sender ({error.smtp_code}); check alerts.smtp.from"
        except smtplib.SMTPNotSupportedError:
            problem = (
                f"{place} offers no STARTTLS, no login, or no SMTPUTF8, which addresses outside of "
                "ASCII need; check alerts.smtp.security, from and to"
            )
        except smtplib.SMTPResponseException as error:
            problem = f"{place} refuses the mail ({error.smtp_code}); see the mail server's log"
        except smtplib.SMTPException:
            problem = f"{place} is silent or hangs up; check alerts.smtp.security and port"
        except OSError as error:
            problem = f"{place}: {network_problem(error)}"
        except ValueError:  # Its text may have a character of the password.
            problem = (
                f"{place}: the host, the user, the password or an address has a character that "
                "cannot be sent; check alerts.smtp and the variable of the password"
            )
        raise SendFailed(problem)

    def _connect(self) -> smtplib.SMTP:
        settings, tls = self.settings, ssl.create_default_context()
        if settings.security == "tls":
            return smtplib.SMTP_SSL(settings.host, settings.port, timeout=SECONDS, context=tls)
        server = smtplib.SMTP(settings.host, settings.port, timeout=SECONDS)
        if settings.security == "starttls":
            try:
                server.starttls(context=tls)
            except BaseException:
                server.close()
                raise
        return server


def _mail(settings: SmtpSettings, alert: Alert) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"] = settings.sender, ", ".join(settings.to)
    mail["Subject"], mail["Date"] = alert.title, formatdate()
    # The same for an alert that is sent again: mail programs show such a mail once.
    mail["Message-ID"] = f"<{alert.digest}@{settings.sender.partition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    # Not every server takes lines of more than 998 bytes, or bytes outside of ASCII.
    mail.set_content(alert.text, cte="quoted-printable")
    return mail
