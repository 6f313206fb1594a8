# One image for teaching servers and for grading: this checkout, its tested versions, no CUDA.
#
#     docker build --tag ctmri .
#     docker run --rm --publish 8888:8888 ctmri     # JupyterLab with the lessons; open the address it prints
#
# JupyterHub starts `jupyterhub-singleuser` from it; the user is number 1000. How to grade with it stands in
# notebooks/assignments/README.md. The nightly workflow builds it and runs lesson 1 in it.
FROM python:3.12-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 student

WORKDIR /course
COPY --chown=student . .

# torch's own index has builds without CUDA, a tenth as large.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    --constraint constraints.txt --editable '.[course,classroom,train,volumes,site]' jupyterhub \
    && install -D -m 644 ctmri_utils/viewers/ctmri-utils.json -t /usr/local/share/jupyter/lab/settings/overrides.d \
    && chown student /course

USER student
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "notebooks"]
