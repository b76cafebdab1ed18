"""Install pulse-edge and its kits from an offline bundle. Standard library only; imports nothing
outside this package.

The bundle carries this package as one archive, `install.pyz`, which a bare Python 3.10 or newer
runs (`pulse_edge.deploy.installer_archive` writes it). The program shares no code with it: what the
two agree on are files, described in `pulse_edge.common.installation`. The workstation uses this
package to pack and to verify bundles.
"""
